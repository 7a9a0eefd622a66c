"""Gathers concurrent calls into `POST /batch` exchanges without ever making one wait for company.

A lane is one exchange after another. A call that finds a free lane goes at once, together with what
else was asked in the same turn of the loop; while all lanes are under way, calls gather for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec

from kept.client.exchange import (
    Answer,
    AnswerLostError,
    AnswerTooLargeError,
    Exchange,
    NotAnEngineError,
    NotSentError,
)
from kept.client.results import UnintelligibleError, decode_batch, decode_single, typed_response
from kept.protocol.codec import ReceivedResponse, join_batch
from kept.protocol.limits import MAX_BATCH_REQUESTS, MAX_BODY_BYTES
from kept.protocol.responses import BAD_REQUEST, INTERNAL, OK, Response
from kept.runtime import Runtime

# Two: the server works on one batch while the client reads and writes the other. More make the
# batches smaller and the server's commits with them.
DEFAULT_LANES: Final = 2
# Brackets around, and a comma before each item.
BATCH_FRAME_BYTES: Final = 2
_BATCH_PATH: Final = "/batch"


class Outcome(msgspec.Struct):
    """An answer and, where the server asked for it, the seconds to leave it in peace."""

    response: Response
    retry_after: float | None = None


class Call(msgspec.Struct):
    """One request, encoded, and who waits for its answer."""

    kind: str
    corr_id: str
    body: bytes
    waiter: asyncio.Future[Outcome]


class Lanes:
    """At most `count` exchanges at a time, each with all calls that came since the last began."""

    def __init__(
        self, exchange: Exchange, runtime: Runtime, timeout_seconds: float, count: int
    ) -> None:
        self._exchange = exchange
        self._runtime = runtime
        self._timeout_seconds = timeout_seconds
        self._count = count
        self._queued: deque[Call] = deque()
        # In the order in which they began: that of a set of tasks is their place in memory.
        self._tasks: dict[asyncio.Task[None], None] = {}
        # A lane was spawned and has not yet taken its first batch: it will take this turn's calls.
        self._starting = False

    async def ask(self, kind: str, corr_id: str, body: bytes) -> Outcome:
        """The answer to one encoded request; raises what `Exchange.post` does."""
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queued.append(Call(kind, corr_id, body, waiter))
        self._start_lane()
        return await waiter

    async def close(self, reason: Exception) -> None:
        """Ends the lanes; whoever still waits gets `reason`."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._queued:
            _fail([self._queued.popleft()], reason)

    def _start_lane(self) -> None:
        if self._starting or len(self._tasks) >= self._count:
            return
        self._starting = True
        task = self._runtime.spawn(self._run_lane(), "kept-client-lane")
        self._tasks[task] = None
        task.add_done_callback(self._lane_ended)

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is None and self._queued:
            self._start_lane()

    async def _run_lane(self) -> None:
        self._starting = False
        while calls := self._take_batch():
            if self._queued:
                self._start_lane()
            await self._exchange_batch(calls)

    def _take_batch(self) -> list[Call]:
        calls: list[Call] = []
        size = BATCH_FRAME_BYTES
        while self._queued and len(calls) < MAX_BATCH_REQUESTS:
            call = self._queued[0]
            if call.waiter.done():
                self._queued.popleft()
                continue
            size += len(call.body) + 1
            if calls and size > MAX_BODY_BYTES:
                break
            calls.append(self._queued.popleft())
        return calls

    async def _exchange_batch(self, calls: list[Call]) -> None:
        body = join_batch([call.body for call in calls])
        try:
            answer = await self._exchange.post(_BATCH_PATH, body, self._timeout_seconds)
        except (NotSentError, AnswerLostError, AnswerTooLargeError) as error:
            _fail(calls, error)
        except asyncio.CancelledError:
            _fail(calls, AnswerLostError("the connection was closed"))
            raise
        except Exception:
            # A defect, not weather: those who wait must learn of it before the lane falls.
            _fail(calls, AnswerLostError("the exchange broke off with an unexpected error"))
            raise
        else:
            _distribute(calls, answer)


def single_outcome(kind: str, corr_id: str, answer: Answer) -> Outcome:
    """The typed answer to a request that travelled alone; raises `AnswerLostError`,
    `NotAnEngineError`."""
    try:
        received = decode_single(answer.body)
        if answer.status == OK and received.head.corr_id != corr_id:
            raise UnintelligibleError("it answers another request")
        return Outcome(typed_response(kind, received), answer.retry_after)
    except UnintelligibleError as error:
        raise _unintelligible(answer, error) from None


def _distribute(calls: list[Call], answer: Answer) -> None:
    if answer.status != OK:
        _refuse(calls, answer)
        return
    try:
        received = decode_batch(answer.body)
        if len(received) != len(calls):
            raise UnintelligibleError(f"{len(received)} answers to {len(calls)} requests")
    except UnintelligibleError as error:
        _fail(calls, _unintelligible(answer, error))
        return
    for call, item in zip(calls, received, strict=True):
        if not call.waiter.done():
            _answer(call, item, answer)


def _answer(call: Call, item: ReceivedResponse, answer: Answer) -> None:
    try:
        if item.head.corr_id != call.corr_id:
            raise UnintelligibleError("it answers another request")
        call.waiter.set_result(Outcome(typed_response(call.kind, item)))
    except UnintelligibleError as error:
        call.waiter.set_exception(_unintelligible(answer, error))


def _refuse(calls: list[Call], answer: Answer) -> None:
    """The whole batch was refused with one envelope, which is then the answer to each call."""
    try:
        received = decode_single(answer.body)
        if received.head.status < BAD_REQUEST:
            raise UnintelligibleError("one answer to a batch")
    except UnintelligibleError as error:
        _fail(calls, _unintelligible(answer, error))
        return
    for call in calls:
        if not call.waiter.done():
            response = typed_response(call.kind, received)
            call.waiter.set_result(Outcome(response, answer.retry_after))


def _unintelligible(answer: Answer, error: UnintelligibleError) -> Exception:
    # A proxy says 502 or 504 in its own words when the server behind it is away for a moment.
    failure = AnswerLostError if answer.status >= INTERNAL else NotAnEngineError
    return failure(f"the answer is not the protocol's: HTTP status {answer.status}, {error}")


def _fail(calls: list[Call], error: Exception) -> None:
    """Each waiter gets an exception of its own: tracebacks are added where one is raised."""
    for call in calls:
        if not call.waiter.done():
            call.waiter.set_exception(type(error)(*error.args))
