"""Bugs of the SDK: what a worker does with its leases, and what durable code may rely on."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.responses import OK, PreloadResult, PromiseResult, Response
from kept.sdk.asks import Ask
from kept.sim.zoo.bug import Menagerie
from kept.sim.zoo.leases import LOSSES

SDK: Final = Menagerie()
bug = SDK.bug

# What makes a workflow go on by a replay.
REPLAYS: Final = ("worker_crash", "stall", "server_crash", "worker_stop", "partition", "lost")


def _settled(ask: Ask, state: PromiseState, value: Value, at: int) -> Response:
    """The answer to a task.record that was not asked."""
    create = ask.create
    record = PromiseRecord(
        create.id, state, create.param, value, create.tags, create.timeout_at, at, at
    )
    return Response(OK, PromiseResult(record))


# -- the lease


@bug(
    "lost-lease-ignored",
    "A worker that is told that a lease is lost goes on.",
    "kept.sdk.worker:Worker._lose",
    faults=LOSSES,
)
def _lost_lease_ignored(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "silence-ignored",
    "A worker whose heartbeats are not answered for a whole lease goes on.",
    "kept.sdk.worker:Worker._stop_expired",
    faults=LOSSES,
)
def _silence_ignored(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "heartbeat-stops",
    "A worker sends no heartbeats.",
    "kept.sdk.worker:Worker._beat",
    fits=lambda mix: mix.calm,
)
def _heartbeat_stops(_original: Any) -> Any:
    async def beat(_self: Any) -> None:
        pass

    return beat


@bug(
    "nothing-handed-back",
    "A worker that stops does not hand back what it holds.",
    "kept.sdk.worker:Worker._release",
    faults=("worker_stop",),
    unfound="The leases expire, and the work goes on: nothing is lost but time.",
)
def _nothing_handed_back(_original: Any) -> Any:
    async def release(_self: Any, _leases: Any) -> None:
        pass

    return release


@bug(
    "claim-asked-anew",
    "A worker whose claim was not answered claims under a new id.",
    "kept.sdk.worker:Worker._claim",
    faults=("lost", "broken_after", "partition", "server_crash"),
    unfound="The leases of the first claim expire, and the work goes on: nothing is lost but time.",
)
def _claim_asked_anew(original: Any) -> Any:
    async def claim(self: Any, room: int) -> None:
        self._unanswered = None
        await original(self, room)

    return claim


@bug(
    "stale-run-goes-on",
    "A run that was kept in memory goes on although somebody else held the task in between.",
    "kept.sdk.worker:Worker._run_durable",
    faults=REPLAYS,
)
def _stale_run_goes_on(original: Any) -> Any:
    async def run(self: Any, lease: Any, function: Any) -> None:
        cached = self._cached.get(lease.id)
        if cached is not None:
            cached.lease.version = lease.version - 1
        await original(self, lease, function)

    return run


@bug(
    "conflict-ignored",
    "Durable code goes on when the engine says that its lease is lost.",
    "kept.sdk.execution:Execution._recorded",
    faults=LOSSES,
    unfound="The worker stops at its next heartbeat.",
)
def _conflict_ignored(original: Any) -> Any:
    def recorded(self: Any, response: Response) -> None:
        if response.ok:
            original(self, response)

    return recorded


# -- steps and their results


@bug(
    "result-before-commit",
    "A step's result is given to the code before it is stored.",
    "kept.sdk.execution:Execution._record",
    faults=REPLAYS,
)
def _result_before_commit(original: Any) -> Any:
    async def record(self: Any, ask: Ask, state: PromiseState, value: Value) -> Response:
        self._services.runtime.spawn(original(self, ask, state, value), "zoo-record")
        return _settled(ask, state, value, self._wall_now())

    return record


@bug(
    "steps-not-recorded",
    "A step's result is not stored: every replay runs it again.",
    "kept.sdk.execution:Execution._record",
)
def _steps_not_recorded(_original: Any) -> Any:
    async def record(self: Any, ask: Ask, state: PromiseState, value: Value) -> Response:
        return _settled(ask, state, value, self._wall_now())

    return record


@bug(
    "rejected-recorded-as-resolved",
    "A step that failed for good is recorded as one that succeeded.",
    "kept.sdk.execution:Execution._record",
)
def _rejected_recorded_as_resolved(original: Any) -> Any:
    async def record(self: Any, ask: Ask, state: PromiseState, value: Value) -> Response:
        if state is PromiseState.REJECTED:
            state = PromiseState.RESOLVED
        answer: Response = await original(self, ask, state, value)
        return answer

    return record


@bug(
    "step-end-lost",
    "A worker loses track of a step's end, and its workflow waits.",
    "kept.sdk.steps:Steps._task_done",
)
def _step_end_lost(_original: Any) -> Any:
    def task_done(self: Any, id: str, _task: object) -> None:
        self._running.pop(id, None)

    return task_done


@bug(
    "retry-without-end",
    "A step is tried again although its policy allows no further try.",
    "kept.sdk.retry:next_wait",
)
def _retry_without_end(_original: Any) -> Any:
    return lambda retry, failures, _error, _entropy: retry.wait(failures)


# -- replay


@bug(
    "release-order-not-stored",
    "The order in which results reached the code is not stored.",
    "kept.sdk.releases:Releases.carried",
    faults=REPLAYS,
)
def _release_order_not_stored(original: Any) -> Any:
    async def carried(self: Any, send: Any) -> Response:
        answer: Response = await original(self, lambda _released: send([]))
        return answer

    return carried


@bug(
    "step-before-its-order",
    "A step begins before the order of the results that led to it is stored.",
    "kept.sdk.releases:Releases.ambiguous",
    faults=REPLAYS,
)
def _step_before_its_order(_original: Any) -> Any:
    return lambda _self: False


@bug(
    "history-not-read",
    "A replay does not read what was recorded.",
    "kept.sdk.history:History.load",
    faults=REPLAYS,
)
def _history_not_read(_original: Any) -> Any:
    async def load(*_: Any) -> None:
        pass

    return load


@bug(
    "history-one-page",
    "A replay reads the first page of what was recorded only.",
    "kept.sdk.history:call",
    faults=REPLAYS,
    fits=lambda mix: "MAX_PRELOAD_RECORDS" in mix.bounds,
)
def _history_one_page(original: Any) -> Any:
    async def call(connection: Any, request: Any) -> Response:
        answer: Response = await original(connection, request)
        if isinstance(answer.data, PreloadResult):
            return Response(answer.status, replace(answer.data, more=None))
        return answer

    return call


@bug(
    "history-in-any-order",
    "A replay gives results in the order of their ids, not of their release.",
    "kept.sdk.history:History.next",
    faults=REPLAYS,
)
def _history_in_any_order(original: Any) -> Any:
    def following(self: Any, asks: Any, waiting: Any) -> Any:
        asked = sorted(id for id in self._order if id in asks)
        if asked:
            self._order.remove(asked[0])
            self._order.appendleft(asked[0])
        return original(self, asks, waiting)

    return following


@bug(
    "cancellation-not-passed-on",
    "A call that the code cancelled is not canceled where it runs.",
    "kept.sdk.execution:Execution._cancel_abandoned",
)
def _cancellation_not_passed_on(_original: Any) -> Any:
    async def cancel(self: Any) -> None:
        self._abandoned.clear()

    return cancel


@bug(
    "resume-not-looked-at",
    "A run that goes on after a suspension does not look which promises have settled.",
    "kept.sdk.execution:Execution._look_at_awaited",
)
def _resume_not_looked_at(_original: Any) -> Any:
    async def look(_self: Any) -> None:
        pass

    return look


@bug(
    "nothing-watched",
    "While steps run, a worker does not notice what else settles.",
    "kept.sdk.watching:Watch.look_at",
)
def _nothing_watched(_original: Any) -> Any:
    return lambda *_: None
