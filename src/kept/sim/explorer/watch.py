"""What must be true of every step of the machine, and of every answer that it gives.

The named properties of `kept.check` are evaluated on each step and on the whole state after it; to
them come those that need the request or the answer: `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from kept.check.properties import (
    INTERNAL_STEP_PROPERTIES,
    STATE_PROPERTIES,
    STEP_PROPERTIES,
    Property,
    StateScope,
    StepScope,
    Violation,
)
from kept.check.state import Delta, State
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseRecord, PromiseState, Task, TaskState
from kept.protocol.responses import (
    OK,
    AcquiredTask,
    ClaimResult,
    FenceResult,
    PreloadResult,
    PromiseResult,
    Response,
)
from kept.protocol.storage import Changes, Edge
from kept.sim.explorer.programs import NOW_MS

FENCED: Final = "a stale holder changes nothing"
TRUE_ANSWERS: Final = "an answer shows what is stored"
SETTLED_ONCE: Final = "a settlement never changes"
ONE_HOLDER: Final = "one holder per task and version"
SAME_ANSWER: Final = "a request that took effect is answered again under its id"
ATTEMPTS: Final = "a job has no more attempts than it may"
GIVEN: Final = "a lease that is answered is held, and brings all children"
AWAITED: Final = "who is told that it is suspended waits for all that it named"
COUNTED: Final = "an expired lease is a failure, and the last one ends the work"
DRAINED: Final = "who waits for a settlement is told of it in its commit"
NOT_EARLY: Final = "a background step that is not due does nothing"
SOUND: Final = "the machine does not fail"
CAN_SETTLE: Final = "every promise can still settle"
DOES_SETTLE: Final = "every promise does settle when nothing enabled is put off for ever"
RULES: Final = (
    FENCED,
    TRUE_ANSWERS,
    SETTLED_ONCE,
    ONE_HOLDER,
    SAME_ANSWER,
    ATTEMPTS,
    GIVEN,
    AWAITED,
    COUNTED,
    DRAINED,
    NOT_EARLY,
    SOUND,
    CAN_SETTLE,
    DOES_SETTLE,
)

ScopeT = TypeVar("ScopeT", StateScope, StepScope)

_UNDER_LEASE: Final = (
    r.TaskFulfill,
    r.TaskSuspend,
    r.TaskFence,
    r.TaskRecordStep,
    r.TaskRelease,
    r.TaskNack,
)


class Broken(AssertionError):
    """A rule or named property is false. `name` says which."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


class Watch:
    """A `StepObserver` over one state, which it gives back as it was."""

    def __init__(self, state: State, reached: set[str]) -> None:
        """Adds to `reached` the properties whose guards held."""
        self._state = state
        self._reached = reached
        self._deltas: list[Delta] = []
        self.changed = False
        # Tasks whose lease went on.
        self.extended: list[str] = []

    def step(self, tenant: str, now: int, name: str, internal: bool, changes: Changes) -> None:  # noqa: FBT001
        """Evaluates a step; see `StepObserver`."""
        if not changes:
            return
        self.changed = True
        state = self._state
        delta = state.apply(changes)
        self._deltas.append(delta)
        for id, before in delta.promises.items():
            if before is not None and not before.pending and state.promises.get(id) != before:
                raise Broken(SETTLED_ONCE, f"{id} is {state.promises.get(id)}")
        for id, task in delta.tasks.items():
            if task is not None and is_extended(task, state.tasks[id]):
                self.extended.append(id)
            if task is not None and name == "lease.expire":
                _check_failure(task, state)
        step_scope = StepScope(now, name, state, delta, internal=internal)
        _evaluate(_ON_INTERNAL_STEP if internal else _ON_STEP, step_scope, self._reached)
        check_state(state, self._reached)

    def mark(self) -> int:
        """A point to go back to."""
        return len(self._deltas)

    def rollback(self, mark: int) -> None:
        """All steps since `mark` did not happen."""
        while len(self._deltas) > mark:
            self._state.undo(self._deltas.pop())


def _check_failure(before: Task, state: State) -> None:
    """Raises `Broken` where the end of a lease is not counted, or ends the work too early."""
    after, promise = state.tasks[before.id], state.promises[before.id]
    if promise.state is PromiseState.REJECTED_TIMEDOUT or promise.settled_at == promise.timeout_at:
        return
    if after.failures != before.failures + 1:
        raise Broken(COUNTED, f"{before.id} had {before.failures} failures, has {after.failures}")
    is_over = after.state is not TaskState.PENDING
    if is_over and after.failures < int(promise.tags.get(tag.ATTEMPTS, NEVER_MS)):
        raise Broken(COUNTED, f"{before.id} is given up after {after.failures} failures")


def is_extended(before: Task, after: Task) -> bool:
    """Whether a step did nothing to a task but to move the end of its lease."""
    held = before.state is after.state is TaskState.ACQUIRED and before.version == after.version
    return held and before.expires_at != after.expires_at


def check_state(state: State, reached: set[str]) -> None:
    """Raises `Broken` where a property of states is false of the whole state, as of now."""
    _evaluate(_ON_STATE, StateScope(NOW_MS, state), reached)
    for task in state.tasks.values():
        allowed = state.promises[task.id].tags.get(tag.ATTEMPTS)
        is_live = task.state in (TaskState.PENDING, TaskState.ACQUIRED)
        if allowed is not None and is_live and task.failures >= int(allowed):
            raise Broken(ATTEMPTS, f"{task.id} failed {task.failures} times of {allowed}")


def check_request(
    before: State, request: r.Request, request_id: str, response: Response, watch: Watch
) -> None:
    """Raises `Broken` where a request had an effect that it may not have in the state `before` it,
    or was not answered as it was when it was asked before."""
    if isinstance(request, r.TaskHeartbeat):
        held = {ref.id for ref in request.tasks if _holds(before, ref.id, ref.version, request.pid)}
        if not held.issuperset(watch.extended):
            raise Broken(FENCED, f"{request.pid}, who does not hold it, extended a lease")
    if isinstance(request, r.TaskClaim):
        _check_claim(before, request, request_id, response)
    if isinstance(request, r.TaskAcquire) and response.ok:
        acquired = before.tasks[request.id]
        if acquired.version != request.version and acquired.last_request != request_id:
            raise Broken(FENCED, f"{request.pid} acquires {acquired.id} at a version that is over")
    if not isinstance(request, _UNDER_LEASE):
        return
    task = before.tasks.get(request.id)
    if task is not None and task.last_request == request_id:
        if not response.ok:
            raise Broken(SAME_ANSWER, f"{request.kind} of {request.id}: {response.status}")
    elif watch.changed and response.ok and not _holds(before, request.id, request.version):
        raise Broken(FENCED, f"{request.kind} took effect without a lease on {request.id}")


def _check_claim(before: State, request: r.TaskClaim, request_id: str, response: Response) -> None:
    """A claim that took effect is answered with what it took, as long as that is held."""
    given = {lease.task.id for lease in _leases(response.data)}
    for task in before.tasks.values():
        if task.last_request != request_id or task.id in given:
            continue
        if _holds(before, task.id, task.version, request.pid):
            raise Broken(SAME_ANSWER, f"the claim that took {task.id} is not answered with it")


def _holds(state: State, id: str, version: int, pid: str | None = None) -> bool:
    task, promise = state.tasks.get(id), state.promises.get(id)
    return (
        task is not None
        and promise is not None
        and task.state is TaskState.ACQUIRED
        and task.version == version
        and (pid is None or task.pid == pid)
        and promise.pending
        and promise.timeout_at > NOW_MS
    )


def check_answer(state: State, request: r.Request, response: Response) -> None:
    """Raises `Broken` where the answer is not what the state after it holds."""
    for shown in _shown(response.data):
        stored = state.promises.get(shown.id)
        if stored is None or stored.record() != shown:
            raise Broken(TRUE_ANSWERS, f"shown {shown}, stored {stored}")
    if isinstance(request, r.TaskSuspend) and response.status == OK:
        _check_awaited(state, request)
    for lease in _leases(response.data):
        task = state.tasks.get(lease.task.id)
        # A child whose deadline the preload found past wakes its awaiter in a step after this one.
        if task is None or replace(task, resumes=lease.task.resumes).record() != lease.task:
            raise Broken(TRUE_ANSWERS, f"shown {lease.task}, stored {task}")
        if task.state is TaskState.FULFILLED and isinstance(request, r.TaskCreate):
            continue
        if task.state is not TaskState.ACQUIRED or task.pid != getattr(request, "pid", None):
            raise Broken(GIVEN, f"{task.id} is {task.state.value}, held by {task.pid}")
        children = {id for id, promise in state.promises.items() if promise.parent == task.id}
        if {child.id for child in lease.preload} != children:
            raise Broken(GIVEN, f"the children of {task.id} are {sorted(children)}")


def _check_awaited(state: State, request: r.TaskSuspend) -> None:
    if state.tasks[request.id].state is not TaskState.SUSPENDED:
        return
    for action in request.actions:
        edge = Edge(action.data.awaited, request.id)
        if edge not in state.callbacks:
            raise Broken(AWAITED, f"{request.id} has no callback on {edge.of}")


def check_commit(state: State) -> None:
    """Raises `Broken` where a settled promise still has somebody who waits, once all is done."""
    for of, to in (*state.callbacks, *state.listeners):
        if not state.promises[of].pending:
            raise Broken(DRAINED, f"{to} waits for {of}, which is settled")


def _shown(data: Any) -> Iterator[PromiseRecord]:
    if isinstance(data, PromiseResult):
        yield data.promise
    elif isinstance(data, AcquiredTask):
        yield data.promise
        yield from data.preload
    elif isinstance(data, PreloadResult):
        yield from data.preload
    elif isinstance(data, FenceResult):
        yield from _shown(data.action.data)
    elif isinstance(data, ClaimResult):
        for lease in data.tasks:
            yield from _shown(lease)


def _leases(data: Any) -> Iterator[AcquiredTask]:
    if isinstance(data, AcquiredTask):
        yield data
    elif isinstance(data, ClaimResult):
        yield from data.tasks


# What looks at when promises were born: states here are alike that differ only in that.
_UNKNOWABLE: Final = frozenset({"consistent_cancellation_reaches_children"})


def _by_part(
    properties: Iterable[Property[ScopeT]],
) -> list[tuple[str, list[tuple[str, Callable[[ScopeT], Iterator[Violation]]]]]]:
    parts: dict[str, list[tuple[str, Callable[[ScopeT], Iterator[Violation]]]]] = {}
    for each in properties:
        if each.name in _UNKNOWABLE:
            continue
        parts.setdefault(each.part, []).append((each.name, each.check))
    return list(parts.items())


_ON_STATE: Final = _by_part(STATE_PROPERTIES.values())
_ON_STEP: Final = _by_part(STEP_PROPERTIES.values())
_ON_INTERNAL_STEP: Final = _by_part([*STEP_PROPERTIES.values(), *INTERNAL_STEP_PROPERTIES.values()])


def _evaluate(
    parts: list[tuple[str, list[tuple[str, Callable[[ScopeT], Iterator[Violation]]]]]],
    scope: ScopeT,
    reached: set[str],
) -> None:
    for part, checks in parts:
        if part and not getattr(scope, part):
            continue
        for name, check in checks:
            scope.reached = 0
            for violation in check(scope):
                raise Broken(name, f"{', '.join(violation.ids)}: {violation.why}")
            if scope.reached:
                reached.add(name)
