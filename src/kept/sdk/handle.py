"""`Handle`: work that was started, wherever it runs."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar

from kept.client.connection import Connection, call
from kept.errors import NotFoundError, ResultGoneError
from kept.protocol import requests as r
from kept.protocol.entries import CancelMode
from kept.protocol.inquiries import Explanation, TaskExplain
from kept.protocol.limits import MAX_WAIT_MS
from kept.protocol.records import PromiseRecord, PromiseState
from kept.protocol.responses import CancelResult, PromiseResult, SignalResult
from kept.runtime import Runtime
from kept.sdk import checks, payload
from kept.sdk.loop import refuse_in_durable_code

T = TypeVar("T")
_KEY_BYTES: Final = 16


class WorkState(NamedTuple):
    """What work says of itself: attributes and progress (0 to 1), and how its promise stands."""

    attributes: dict[str, str]
    progress: float | None
    promise: PromiseState


class Handle(Generic[T]):
    """A way to the result of started work: await it, in this process or another."""

    # `known` is the record that the start was answered with.
    def __init__(
        self,
        id: str,
        connection: Connection,
        runtime: Runtime,
        expected: Any = Any,
        known: PromiseRecord | None = None,
    ) -> None:
        self.id = id
        self._connection = connection
        self._runtime = runtime
        self._expected = expected
        self._known = known

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def __await__(self) -> Generator[Any, None, T]:
        return self.result().__await__()

    async def result(self, timeout: timedelta | float | None = None) -> T:
        """The result, once there is one.

        Raises `PromiseRejectedError`, `PromiseCanceledError` or `PromiseTimedOutError` as the work
        ended, `ResultGoneError` where it ended so long ago that its result has left after the
        retention of its queue, and `TimeoutError` after `timeout` (a timedelta or
        seconds), which leaves the work as it is.
        """
        end = None
        if timeout is not None:
            end = self._runtime.monotonic() + checks.seconds("timeout", timeout)
        while True:
            wait_ms = MAX_WAIT_MS
            if end is not None:
                left = max(end - self._runtime.monotonic(), 0)
                wait_ms = int(min(left * 1_000, MAX_WAIT_MS))
            record = await self._record(wait_ms)
            if record.state is not PromiseState.PENDING:
                return self._outcome(record)
            if end is not None and self._runtime.monotonic() >= end:
                raise TimeoutError(f"{self.id} has no result after {timeout}")

    async def done(self) -> bool:
        """Whether it has ended, in whichever way."""
        try:
            record = await self._record(0)
        except ResultGoneError:
            return True
        return record.state is not PromiseState.PENDING

    async def cancel(
        self, reason: str | None = None, *, force: bool = False, recursive: bool = True
    ) -> bool:
        """Cancels it, and with `recursive` all that it started; False where it has ended already.

        What runs is asked to stop: a durable function sees `asyncio.CancelledError` where it waits,
        may still clean up in durable steps, and has a minute for it. `force` settles it at once, and
        whoever works on it learns that with the next heartbeat. Awaiting it raises
        `PromiseCanceledError`, with `reason`. Protocol B3.
        """
        refuse_in_durable_code("canceling through a Handle", "cancel what ctx.call() returned")
        mode = CancelMode.FORCE if force else CancelMode.REQUEST
        request = r.PromiseCancel(self.id, reason, mode, recursive)
        try:
            response = await call(self._connection, request)
        except NotFoundError:
            if self._known is None:
                raise
            return False
        assert isinstance(response.data, CancelResult)
        return response.data.promise.state in (
            PromiseState.PENDING,
            PromiseState.REJECTED_CANCELED,
        )

    async def send(self, name: str, value: Any = None, *, key: str | None = None) -> int:
        """Sends a message to its mailbox `name`; see `App.send`."""
        refuse_in_durable_code("sending through a Handle", "send within a step")
        return await send_message(self._connection, self._runtime, self.id, name, value, key)

    async def notify(self, url: str) -> bool:
        """Has a webhook POSTed to `url` when it ends, however it does (protocol A6); False where it
        has ended already, so that nothing will be sent. Receivers use `kept.verify_webhook`."""
        refuse_in_durable_code("asking for a webhook through a Handle", "ask within a step")
        response = await call(self._connection, r.PromiseRegisterListener(self.id, url))
        assert isinstance(response.data, PromiseResult)
        return response.data.promise.state is PromiseState.PENDING

    async def explain(self) -> Explanation:
        """Why the work does not run, or what it is doing: `text` is one sentence (protocol B9)."""
        refuse_in_durable_code("explaining through a Handle", "ask within a step")
        response = await call(self._connection, TaskExplain(self.id))
        assert isinstance(response.data, Explanation)
        return response.data

    async def state(self) -> WorkState:
        """What the work says of itself, and whether it is over; see `App.state`."""
        refuse_in_durable_code("reading a state through a Handle", "read it within a step")
        return await state_of(self._connection, self.id)

    async def _record(self, wait_ms: int) -> PromiseRecord:
        refuse_in_durable_code("awaiting a Handle", "durable code awaits what ctx.call() returns")
        if self._known is not None and self._known.state is not PromiseState.PENDING:
            # It never changes again, and may have left meanwhile.
            return self._known
        try:
            response = await call(self._connection, r.PromiseWait(self.id, wait_ms))
        except NotFoundError as error:
            if self._known is None:
                raise NotFoundError(
                    f"{error}: it was never started, or left after the retention of its queue"
                ) from None
            raise ResultGoneError(
                self.id,
                f"{self.id} was started and is not there any more: it ended, and left with its "
                "result after the retention of its queue (7 days where nothing else is set)",
            ) from None
        assert isinstance(response.data, PromiseResult)
        return response.data.promise

    def _outcome(self, record: PromiseRecord) -> T:
        error = payload.outcome_error(record)
        if error is not None:
            raise error
        result: T = payload.decode(record.value, self._expected)
        return result


async def send_message(
    connection: Connection, runtime: Runtime, id: str, name: str, value: Any, key: str | None
) -> int:
    """One `signal.send` (B8). Without a `key` it gets one, so that it can be asked again safely."""
    if key is None:
        key = runtime.entropy(_KEY_BYTES).hex()
    request = r.SignalSend(id, name, payload.encode(value), key)
    response = await call(connection, request)
    assert isinstance(response.data, SignalResult)
    return response.data.number


async def state_of(connection: Connection, id: str) -> WorkState:
    """What the work of a promise says of itself. Raises `NotFoundError`."""
    response = await call(connection, r.PromiseGet(id, attributes=True))
    result = response.data
    assert isinstance(result, PromiseResult)
    return WorkState(result.attributes or {}, result.progress, result.promise.state)
