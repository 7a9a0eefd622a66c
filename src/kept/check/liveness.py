"""The liveness properties, refuted by running: requests stop, time stands, the background goes on.

Assumed is that the clock passes every instant and that a background step which stays enabled is
taken some day. Here an instant is fixed and all enabled steps are fired in rounds until none is
left; what must have happened "later" must then have happened. The caller fires the steps, and sees
to it that no message leaves the outbox meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from kept.check.monitor import PropertyViolated
from kept.check.properties.departures import has_no_deadline
from kept.check.properties.scopes import is_live
from kept.check.state import State
from kept.protocol.records import Delivery, MessageKey, Task, TaskState
from kept.protocol.storage import Edge

# A deadline, its callbacks, the awaiters' deadlines, theirs, and two to see that nothing is left.
DEFAULT_ROUNDS: Final = 6

PROMISES_SETTLE: Final = "EventuallyEveryPromiseSettles"
TASKS_FULFIL: Final = "EventuallyEveryTaskFulfils"
AWAITER_RESUMED: Final = "EventuallyAwaiterResumed"
LISTENER_NOTIFIED: Final = "EventuallyListenerNotified"
LIVENESS_NAMES: Final = (PROMISES_SETTLE, TASKS_FULFIL, AWAITER_RESUMED, LISTENER_NOTIFIED)


class EnabledStep(NamedTuple):
    """A background step that would change something. `to` is the second end of an edge."""

    name: str
    id: str
    to: str = ""


class StepsNeverEndError(AssertionError):
    """Steps are still enabled after all rounds: one of them does not disable itself."""


def enabled_steps(state: State, now: int) -> list[EnabledStep]:
    """All background steps that are enabled at `now` (ms), deadlines first."""
    return [
        *_enabled_timeouts(state, now),
        *_enabled_drains(state, now),
        *_enabled_task_steps(state, now),
        *(
            EnabledStep("schedule.fire", c.id)
            for c in state.schedules.values()
            if c.next_run_at <= now
        ),
    ]


def check_liveness(
    read: Callable[[], State],
    fire: Callable[[EnabledStep], None],
    now: int,
    *,
    rounds: int = DEFAULT_ROUNDS,
) -> int:
    """Fires all enabled steps at `now` (ms) in at most `rounds` rounds, then looks at the result.

    `read` gives the present state; `fire` takes one step and does nothing where it is no longer
    enabled. Returns the number of rounds in which something was enabled. Raises `PropertyViolated`
    with the name of the liveness property that is false, or `StepsNeverEndError`.
    """
    state = read()
    callbacks = [edge for edge in state.callbacks if not _live(state, edge.of, now)]
    listeners = [edge for edge in state.listeners if not _live(state, edge.of, now)]
    taken = 0
    while taken < rounds and (steps := enabled_steps(read(), now)):
        taken += 1
        for step in steps:
            fire(step)
    state = read()
    _check_settled(state, now)
    _check_awaiters(state, callbacks, now)
    _check_listeners(state, listeners, now)
    left = enabled_steps(state, now)
    if left:
        raise StepsNeverEndError(f"still enabled at {now} after {rounds} rounds: {left[0]}")
    return taken


def _live(state: State, id: str, now: int) -> bool:
    promise = state.promises.get(id)
    return promise is not None and is_live(promise, now)


def _enabled_timeouts(state: State, now: int) -> Iterator[EnabledStep]:
    for id, p in state.promises.items():
        # Ours: only external promises with a deadline are armed; the others are projected (B6).
        if p.pending and p.is_external and not has_no_deadline(p) and p.timeout_at <= now:
            yield EnabledStep("promise.timeout", id)


def _enabled_drains(state: State, now: int) -> Iterator[EnabledStep]:
    for name, edges in (("callback", state.callbacks), ("listener", state.listeners)):
        for of, to in edges:
            if not _live(state, of, now):
                yield EnabledStep(name, of, to)


def _enabled_task_steps(state: State, now: int) -> Iterator[EnabledStep]:
    for id, t in state.tasks.items():
        if not _live(state, id, now):
            continue
        if t.state is TaskState.ACQUIRED and t.expires_at is not None and t.expires_at <= now:
            yield EnabledStep("lease.expire", id)
        elif t.retry_at is not None and t.retry_at <= now and _is_dispatched(t):
            yield EnabledStep("task.retry", id)


def _is_dispatched(t: Task) -> bool:
    """Whether a due task is sent. A pulled one is claimable by being due, a timer's only waits."""
    return t.state is TaskState.PENDING and t.delivery is Delivery.PUSH


def _check_settled(state: State, now: int) -> None:
    for step in _enabled_timeouts(state, now):
        raise _violated(PROMISES_SETTLE, (step.id,), now, "its deadline has come, it is pending")
    for id, t in state.tasks.items():
        promise = state.promises.get(id)
        if promise is None or is_live(promise, now) or t.state is TaskState.FULFILLED:
            continue
        raise _violated(TASKS_FULFIL, (id,), now, f"its promise is not live, it is {t.state.value}")


def _check_awaiters(state: State, callbacks: Iterable[Edge], now: int) -> None:
    for of, to in state.callbacks:
        if not _live(state, of, now):
            raise _violated(AWAITER_RESUMED, (of, to), now, "the callback is still there")
    for of, to in callbacks:
        task = state.tasks.get(to)
        if task is None or task.state is TaskState.FULFILLED:
            continue
        if task.state is TaskState.SUSPENDED or (to, of) not in state.resumes:
            why = f"the callback is gone, the awaiter {task.state.value}, not resumed by it"
            raise _violated(AWAITER_RESUMED, (of, to), now, why)


def _check_listeners(state: State, listeners: Iterable[Edge], now: int) -> None:
    for of, to in state.listeners:
        if not _live(state, of, now):
            raise _violated(LISTENER_NOTIFIED, (of, to), now, "the listener is still there")
    for of, to in listeners:
        promise = state.promises.get(of)
        is_sent = MessageKey.unblock(of, to) in state.outbox
        if not is_sent or promise is None or promise.pending:
            why = "the listener is gone, and no settled promise is on its way to it"
            raise _violated(LISTENER_NOTIFIED, (of, to), now, why)


def _violated(name: str, ids: tuple[str, ...], now: int, why: str) -> PropertyViolated:
    return PropertyViolated(name, ids, now, "the last round", why)
