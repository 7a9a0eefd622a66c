"""What the workers of a world do: each promise's program, and the request that a worker makes next.

A worker is nothing but a `Local`: which task it believes to hold, at which version, and how far it
is. It goes on by asking; the answer alone tells it what to believe next, as with a real worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import EMPTY, PromiseRecord, PromiseState, TaskRecord, Value
from kept.protocol.responses import (
    AcquiredTask,
    ClaimResult,
    FenceResult,
    HeartbeatResult,
    PreloadResult,
    PromiseResult,
    Response,
)

# Every state of a world is seen from this instant: what lies before it has only passed.
NOW_MS: Final = 1_000_000_000
# Leases, retries and deadlines are whole ticks, so only few differences between instants exist.
TICK_MS: Final = 1_000
# How long canceled work may take; as long as a lease and one tick, so that either may end first.
GRACE_MS: Final = 2 * TICK_MS


class Birth(NamedTuple):
    """A promise that is created: `ticks` until its deadline, or none."""

    id: str
    tags: Mapping[str, str]
    ticks: int | None = None

    def request(self) -> r.PromiseCreate:
        timeout_at = NEVER_MS if self.ticks is None else NOW_MS + self.ticks * TICK_MS
        return r.PromiseCreate(self.id, timeout_at, EMPTY, dict(self.tags))


class Record(NamedTuple):
    """A step: run here, its result recorded by task.record."""

    child: Birth


class Call(NamedTuple):
    """Another promise is created under the lease, by task.fence."""

    child: Birth


class Await(NamedTuple):
    """The task suspends until all of these promises are settled."""

    ids: tuple[str, ...]


class Fulfil(NamedTuple):
    """The end of a program."""

    state: PromiseState = PromiseState.RESOLVED


Operation: TypeAlias = Record | Call | Await | Fulfil
Program: TypeAlias = tuple[Operation, ...]


class Local(NamedTuple):
    """What one worker knows. `known` are the children that it saw settled; `slot` numbers the
    request of the kind `asks` whose answer it waits for, 0 for none. `stopping`: it heard that its
    work is canceled, and ends it."""

    phase: str
    task: str = ""
    version: int = 0
    position: int = 0
    known: tuple[str, ...] = ()
    slot: int = 0
    asks: str = ""
    stopping: bool = False


IDLE: Final = Local("idle")
TOLD: Final = "told"
HELD: Final = "held"

# The kinds of request that a worker makes; `OPERATION` is whatever its program does next.
START: Final = "start"
CLAIM: Final = "claim"
ACQUIRE: Final = "acquire"
OPERATION: Final = "operation"
NACK: Final = "nack"
RELEASE: Final = "release"
HEARTBEAT: Final = "heartbeat"

# What a worker does instead whose work is asked to stop.
END_CANCELED: Final = "end canceled"
OPERATION_NAMES: Final[dict[type, str]] = {
    Record: "record",
    Call: "call",
    Await: "suspend",
    Fulfil: "fulfil",
}


class Work(NamedTuple):
    """The programs by promise id, the queue to claim from, and what a worker may start itself."""

    programs: Mapping[str, Program]
    queue: str | None = None
    started: Birth | None = None

    def name(self, local: Local, kind: str) -> str:
        """What a request is called in a trace."""
        if kind != OPERATION:
            return kind
        if local.stopping:
            return END_CANCELED
        return OPERATION_NAMES[type(self.programs[local.task][local.position])]

    def request(self, pid: str, local: Local, kind: str) -> r.Request:
        """The request of that kind that a worker makes where it stands."""
        if kind == CLAIM:
            assert self.queue is not None
            return r.TaskClaim([self.queue], pid, TICK_MS)
        if kind == START:
            assert self.started is not None
            return r.TaskCreate(pid, TICK_MS, r.CreateAction(self.started.request()))
        if kind == ACQUIRE:
            return r.TaskAcquire(local.task, local.version, pid, TICK_MS)
        if kind == NACK:
            return r.TaskNack(local.task, local.version, error=Value(data=pid))
        if kind == RELEASE:
            return r.TaskRelease(local.task, local.version)
        if kind == HEARTBEAT:
            refs = [r.TaskRef(local.task, local.version)]
            return r.TaskHeartbeat(pid, refs, report=True)
        assert kind == OPERATION
        return self._operation(pid, local)

    def _operation(self, pid: str, local: Local) -> r.Request:
        program, task, version = self.programs[local.task], local.task, local.version
        released = _released(program, local.position)
        if local.stopping:
            verdict = r.PromiseSettle(task, PromiseState.REJECTED_CANCELED)
            return r.TaskFulfill(task, version, r.SettleAction(verdict), [*released, task])
        match program[local.position]:
            case Record(child):
                state, value = PromiseState.RESOLVED, Value(data=pid)
                return r.TaskRecordStep(task, version, child.request(), state, value, released)
            case Call(child):
                return r.TaskFence(task, version, r.CreateAction(child.request()), released)
            case Await(ids):
                awaited = [id for id in ids if id not in local.known]
                actions = [r.CallbackAction(r.PromiseRegisterCallback(id, task)) for id in awaited]
                return r.TaskSuspend(task, version, actions, released)
            case Fulfil(state):
                verdict = r.PromiseSettle(task, state, Value(data=pid))
                return r.TaskFulfill(task, version, r.SettleAction(verdict), released)

    def after(self, local: Local, kind: str, response: Response) -> Local:
        """What the worker believes once it has the answer; without a lease it has nothing to do."""
        data = response.data
        if kind == HEARTBEAT:
            return self._beaten(local, data)
        if not response.ok:
            return IDLE
        if isinstance(data, ClaimResult):
            return self._acquired(data.tasks[0]) if data.tasks else IDLE
        if isinstance(data, AcquiredTask):
            # A task that is over already is answered without a lease.
            return self._acquired(data) if data.task.pid is not None else IDLE
        if isinstance(data, PreloadResult):
            return self._placed(local, data.preload)
        if isinstance(data, FenceResult):
            inner = data.action.data
            return self._next(local, inner.promise if isinstance(inner, PromiseResult) else None)
        if isinstance(data, PromiseResult) and data.promise.id != local.task:
            return self._next(local, data.promise)
        return IDLE

    def _beaten(self, local: Local, data: object) -> Local:
        if not isinstance(data, HeartbeatResult):
            return local
        if data.lost:
            return IDLE
        # Who waits for an answer asks the same again first.
        return local._replace(stopping=True) if data.cancel and not local.slot else local

    def _acquired(self, lease: AcquiredTask) -> Local:
        task: TaskRecord = lease.task
        stopping = lease.cancel_requested_at is not None
        return self._placed(Local(HELD, task.id, task.version, stopping=stopping), lease.preload)

    def _placed(self, local: Local, preload: Iterable[PromiseRecord]) -> Local:
        """Where the program stands, told by the children that exist: that is what replay does."""
        children = {child.id: child for child in preload}
        known = {
            id for id, child in children.items() if child.state is not PromiseState.PENDING
        } | set(local.known)
        position = 0
        for operation in self.programs[local.task]:
            match operation:
                case Record(child) if child.id in known:
                    position += 1
                case Call(child) if child.id in children or child.id in known:
                    position += 1
                case Await(ids) if known.issuperset(ids):
                    position += 1
                case _:
                    break
        known_ids = tuple(sorted(known))
        return Local(HELD, local.task, local.version, position, known_ids, stopping=local.stopping)

    def _next(self, local: Local, child: PromiseRecord | None) -> Local:
        known = set(local.known)
        if child is not None and child.state is not PromiseState.PENDING:
            known.add(child.id)
        program, position = self.programs[local.task], local.position + 1
        while isinstance(operation := program[position], Await) and known.issuperset(operation.ids):
            position += 1
        known_ids = tuple(sorted(known))
        return Local(HELD, local.task, local.version, position, known_ids, stopping=local.stopping)


def _released(program: Program, position: int) -> list[str]:
    """The results that reached the code right before it made this request (protocol B3)."""
    if position == 0:
        return []
    match program[position - 1]:
        case Record(child):
            return [child.id]
        case Await(ids):
            return list(ids)
        case _:
            return []
