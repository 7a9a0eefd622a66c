"""`app.once`: a call whose result is recorded once for its key, and read by everyone who comes later.

The record is a promise with a task, found by its dedupe key, in a queue from which no worker claims.
Whoever has the task's lease runs the function, renews the lease meanwhile, and fulfils the promise;
the others wait for that, and look from time to time whether the task is free again because the one
who had it gave up or died (docs/design/ledger.md).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any, Final, NamedTuple

from kept.client.connection import call
from kept.errors import (
    ConfigurationError,
    ConnectionFailedError,
    KeptError,
    RequestError,
    error_for,
)
from kept.protocol import keys
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INTEGER
from kept.protocol.records import EMPTY, PromiseRecord, PromiseState, TaskState
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    AcquiredTask,
    HeartbeatResult,
    PromiseResult,
    TaskResult,
)
from kept.sdk import payload
from kept.sdk.functions import Function
from kept.sdk.services import HOLDER, Services

log = logging.getLogger("kept.ledger")

# No worker claims from it: what waits there waits for the next caller.
LEDGER_QUEUE: Final = "kept.once"
LEDGER_TAGS: Final = {tag.TARGET: f"queue://{LEDGER_QUEUE}"}
DEFAULT_WINDOW_SECONDS: Final = 7 * 86_400.0
# The parameter of a function that gets the idempotency key of its call.
KEY_PARAMETER: Final = "idempotency_key"
# A call that was begun and never recorded keeps its idempotency key so long beyond its window.
_UNRECORDED_MS: Final = 30 * 86_400_000
_BEATS_PER_TTL: Final = 3
_SHORTEST_RETRY_SECONDS: Final = 0.05
# Those who wait hear of a result at once, and by a look of a run that was given up.
_FIRST_LOOK_SECONDS: Final = 0.1
_LONGEST_LOOK_SECONDS: Final = 2.0
_LOOK_GROWTH: Final = 1.5
_ID_BYTES: Final = 8
_UUID_BYTES: Final = 16


class Asked(NamedTuple):
    """What a caller wants once, and for how long (ms)."""

    key: str
    function: Function[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    window: int
    ttl: int

    @property
    def wants_key(self) -> bool:
        """Whether the function takes its idempotency key, and the caller does not give one."""
        signature = self.function.signature
        if KEY_PARAMETER not in signature.parameters:
            return False
        try:
            return KEY_PARAMETER not in signature.bind_partial(*self.args, **self.kwargs).arguments
        except TypeError:
            return False

    def keywords(self, idempotency_key: str) -> dict[str, Any]:
        """The keyword arguments of the call."""
        if self.wants_key:
            return {**self.kwargs, KEY_PARAMETER: idempotency_key}
        return self.kwargs

    def check(self) -> None:
        """Raises `InvalidArgumentsError`, and `ConfigurationError` for durable code."""
        if self.function.durable:
            raise ConfigurationError(
                f"{self.function.name} takes a Context, and is done once by its id: "
                "app.start(function, …, id=…)"
            )
        self.function.check(self.args, self.keywords(""))


class _Lease(NamedTuple):
    """The right to run the function. It was asked for at `since`, on the monotonic clock."""

    id: str
    version: int
    pid: str
    since: float


class Ledger:
    """One call of `app.once`."""

    def __init__(self, services: Services, asked: Asked) -> None:
        self._services = services
        self._runtime = services.runtime
        self._asked = asked

    async def result(self) -> Any:
        """The recorded result: of an earlier call, of one that is under way, or of this one."""
        self._asked.check()
        while True:
            record = await self._entry()
            if record.state is PromiseState.PENDING:
                record = await self._settled(record.id)
            if record.state is PromiseState.REJECTED_TIMEDOUT:
                # Begun long ago, never recorded, and its window is over: a new entry takes the key.
                continue
            error = payload.outcome_error(record)
            if error is not None:
                raise error
            return payload.decode(record.value, self._asked.function.returns)

    async def _entry(self) -> PromiseRecord:
        """The promise that stands for the key now; a new one where there is none."""
        asked, now = self._asked, self._runtime.now_ms()
        # Beyond the window, so that it never ends by its deadline while it holds the key.
        deadline = min(now + asked.window + _UNRECORDED_MS, MAX_INTEGER - 1)
        create = r.PromiseCreate(
            f"{asked.key}.once.{self._runtime.entropy(_ID_BYTES).hex()}",
            deadline,
            EMPTY,
            {
                **LEDGER_TAGS,
                tag.DEDUPE: asked.key,
                tag.DEDUPE_WINDOW: str(asked.window),
                tag.DEDUPE_MISMATCH: keys.IGNORE,
            },
        )
        data = (await call(self._services.connection, create)).data
        assert isinstance(data, PromiseResult)
        return data.promise

    async def _settled(self, id: str) -> PromiseRecord:
        """The record once it is settled, by others or by running the function here."""
        version = 0
        while True:
            lease = await self._acquired(id, version)
            if lease is not None:
                record = await self._driven(_Run(self._services, self._asked, lease))
                if record is not None:
                    return record
            found = await self._awaited(id, version)
            if isinstance(found, PromiseRecord):
                return found
            version = found

    async def _acquired(self, id: str, version: int) -> _Lease | None:
        """The lease, where the task was free."""
        pid = f"once-{self._runtime.entropy(_ID_BYTES).hex()}"
        acquire = r.TaskAcquire(id, version, pid, self._asked.ttl, preload=0)
        entropy = self._runtime.entropy(_UUID_BYTES)
        request_id = str(uuid.UUID(bytes=entropy, version=4))
        started = self._runtime.monotonic()
        try:
            response = await self._services.connection.send(acquire, request_id=request_id)
        except BaseException:
            # It may have been had all the same, and would be held by nobody for its ttl.
            self._runtime.spawn(self._give_back(acquire, request_id), "kept-once-return")
            raise
        if isinstance(response.data, AcquiredTask):
            return _Lease(id, response.data.task.version, pid, started)
        if response.status == CONFLICT:
            return None
        raise error_for(response.status, str(response.data), response.detail)

    async def _give_back(self, acquire: r.TaskAcquire, request_id: str) -> None:
        try:
            response = await self._services.connection.send(acquire, request_id=request_id)
            if isinstance(response.data, AcquiredTask):
                release = r.TaskRelease(acquire.id, response.data.task.version)
                await self._services.connection.send(release)
        except KeptError as error:
            log.info("%s: not given back, its lease will lapse: %s", acquire.id, error)

    async def _driven(self, run: _Run) -> PromiseRecord | None:
        """What the run came to. A caller that is cancelled stops the function first."""
        driving = self._runtime.spawn(run.drive(), "kept-once-run")
        try:
            return await asyncio.shield(driving)
        except asyncio.CancelledError:
            run.stop()
            driving.add_done_callback(_look_at_error)
            await asyncio.wait((driving,))
            raise

    async def _awaited(self, id: str, refused: int) -> PromiseRecord | int:
        """The settled record, or the version at which the task is free. Where it is free at the
        version that was `refused`, its queue lets nothing start, and it is tried after a while."""
        connection, pause = self._services.connection, _FIRST_LOOK_SECONDS
        while True:
            task = (await call(connection, r.TaskGet(id))).data
            assert isinstance(task, TaskResult)
            is_free = task.task.state is TaskState.PENDING
            if is_free and task.task.version != refused:
                return task.task.version
            waited = (await call(connection, r.PromiseWait(id, int(pause * 1_000)))).data
            assert isinstance(waited, PromiseResult)
            if waited.promise.state is not PromiseState.PENDING:
                return waited.promise
            if is_free:
                return refused
            pause = min(pause * _LOOK_GROWTH, _LONGEST_LOOK_SECONDS)


class _Run:
    """A run of the function under a lease."""

    def __init__(self, services: Services, asked: Asked, lease: _Lease) -> None:
        self._services = services
        self._runtime = services.runtime
        self._asked = asked
        self._lease = lease
        self._id = lease.id
        self._ttl = asked.ttl / 1_000
        self._confirmed_at = lease.since
        self._stopped = False
        self._running: asyncio.Task[Any] | None = None

    def stop(self) -> None:
        """Cancels the function; a result that it has already is still recorded."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    async def drive(self) -> PromiseRecord | None:
        """The record; None where the lease was lost, so that another may run it. Raises what the
        function raises, and then the next caller runs it."""
        running = self._running = self._runtime.spawn(self._call(), "kept-once-call")
        renewing = self._runtime.spawn(self._renew(), "kept-once-renewal")
        if self._stopped:
            running.cancel()
        try:
            await asyncio.wait((running, renewing), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return await self._recorded(running.result())
        except BaseException:
            await _ended(running)
            await self._release()
            raise
        finally:
            renewing.cancel()
        await _ended(running)
        return None

    async def _call(self) -> Any:
        HOLDER.set(self._id)
        asked = self._asked
        keywords = asked.keywords(self._id)
        return await self._services.call_now(asked.function, asked.args, keywords)

    async def _recorded(self, result: Any) -> PromiseRecord | None:
        settle = r.PromiseSettle(self._id, PromiseState.RESOLVED, payload.encode(result))
        fulfill = r.TaskFulfill(self._id, self._lease.version, r.SettleAction(settle))
        response = await self._services.connection.send(fulfill)
        if isinstance(response.data, PromiseResult):
            return response.data.promise
        if response.status in (CONFLICT, NOT_FOUND):
            log.warning("%s: not recorded, the lease had been lost", self._id)
            return None
        raise error_for(response.status, str(response.data), response.detail)

    async def _release(self) -> None:
        if self._services.is_in_thread(self._id):
            # Given back, it would run here and elsewhere at the same time.
            log.warning("%s: still runs in a thread; its lease will lapse", self._id)
            return
        try:
            await self._services.connection.send(r.TaskRelease(self._id, self._lease.version))
        except ConnectionFailedError as error:
            log.warning("%s: not given back, its lease will lapse: %s", self._id, error)

    async def _renew(self) -> None:
        """Ends once the lease is known to be over."""
        pause = self._ttl / _BEATS_PER_TTL
        while True:
            await self._runtime.sleep(pause)
            try:
                async with asyncio.timeout(self._left()):
                    if not await self._beat():
                        log.warning("%s: the lease is lost, stopping", self._id)
                        return
                pause = self._ttl / _BEATS_PER_TTL
            except (TimeoutError, ConnectionFailedError, RequestError) as error:
                log.warning("%s: a heartbeat failed: %s", self._id, error)
                pause = max(_SHORTEST_RETRY_SECONDS, min(pause, self._left()) / _BEATS_PER_TTL)
            if self._left() <= 0:
                log.warning("%s: no heartbeat was answered for its ttl, stopping", self._id)
                return

    def _left(self) -> float:
        """Seconds for which the lease is sure to hold."""
        return self._confirmed_at + self._ttl - self._runtime.monotonic()

    async def _beat(self) -> bool:
        """Whether the lease holds still. Raises `RequestError` where that is not known."""
        started = self._runtime.monotonic()
        ref = r.TaskRef(self._id, self._lease.version)
        beat = r.TaskHeartbeat(self._lease.pid, [ref], report=True)
        data = (await call(self._services.connection, beat)).data
        assert isinstance(data, HeartbeatResult)
        if data.lost:
            return False
        self._confirmed_at = started
        return True


async def _ended(running: asyncio.Task[Any]) -> None:
    """Waits for a function that is told to stop, however long it cleans up."""
    running.cancel()
    running.add_done_callback(_look_at_error)
    await asyncio.wait((running,))


def _look_at_error(task: asyncio.Task[Any]) -> None:
    """What ended unwatched is not complained about by the loop."""
    if not task.cancelled():
        task.exception()
