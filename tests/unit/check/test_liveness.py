"""Liveness, refuted by running: a small background that works, and the same with a part left out."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kept.check.liveness import (
    LIVENESS_NAMES,
    EnabledStep,
    StepsNeverEndError,
    check_liveness,
    enabled_steps,
)
from kept.check.monitor import Monitor, PropertyViolated
from kept.check.state import State
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import Delivery, MessageKey, OutboxEntry, Task, TaskState
from kept.protocol.storage import DEFAULT_TENANT, Changes, Edge
from tests.unit.check.cases.records import (
    HOOK,
    NOW,
    TARGETED,
    acquired,
    pending,
    resolved,
    schedule,
    state,
    suspended,
    waiting,
)

RETRY_MS = 5_000


class Background:
    """The background steps 1 to 5 on a state, watched by a monitor; `broken` ones do nothing, or
    take what they drain away without its effect."""

    def __init__(self, start: State, *, broken: str = "") -> None:
        self.monitor = Monitor()
        self.monitor.begin(start.dump(), NOW)
        self.broken = broken
        self.now = NOW

    def read(self) -> State:
        return self.monitor.state()

    def run(self, now: int) -> int:
        self.now = now
        return check_liveness(self.read, self.fire, now)

    def fire(self, step: EnabledStep) -> None:
        if step.name == self.broken or step not in enabled_steps(self.read(), self.now):
            return
        if step.to and self.read().promises[step.id].pending:
            return  # edges are drained once the settlement is stored
        changes = {
            "promise.timeout": self.timeout,
            "callback": self.callback,
            "listener": self.listener,
            "lease.expire": self.expire,
            "task.retry": self.retry,
        }[step.name](step)
        if self.broken == f"quietly {step.name}":
            changes = Changes(callbacks=changes.callbacks, listeners=changes.listeners)
            self.read().apply(changes)
            return
        self.monitor.step(DEFAULT_TENANT, self.now, step.name, True, changes)

    def timeout(self, step: EnabledStep) -> Changes:
        return self.settled(step.id)

    def settled(self, id: str) -> Changes:
        """What stores a promise's deadline; its task is fulfilled."""
        records = self.read()
        changes = Changes(promises={id: records.promises[id].project(self.now)})
        if id in records.tasks:
            version = records.tasks[id].version
            changes.tasks[id] = Task(id, TaskState.FULFILLED, version)
            changes.resumes_cleared.add(id)
        return changes

    def callback(self, step: EnabledStep) -> Changes:
        records, edge = self.read(), Edge(step.id, step.to)
        task, promise = records.tasks[step.to], records.promises[step.to]
        if task.state is not TaskState.FULFILLED and promise.timeout_at <= self.now:
            changes = self.settled(step.to)
        elif task.state is TaskState.FULFILLED:
            changes = Changes()
        else:
            woken = replace(task, resumes=task.resumes + 1)
            if task.state is TaskState.SUSPENDED:
                woken = replace(woken, state=TaskState.PENDING, retry_at=self.now)
            changes = Changes(tasks={step.to: woken}, resumes={Edge(step.to, step.id): True})
        changes.callbacks[edge] = False
        return changes

    def listener(self, step: EnabledStep) -> Changes:
        key = MessageKey.unblock(step.id, step.to)
        return Changes(
            listeners={Edge(step.id, step.to): False}, outbox={key: OutboxEntry(key, step.to)}
        )

    def expire(self, step: EnabledStep) -> Changes:
        version = self.read().tasks[step.id].version
        return Changes(tasks={step.id: waiting(step.id, version=version, retry_at=self.now)})

    def retry(self, step: EnabledStep) -> Changes:
        task, key = self.read().tasks[step.id], MessageKey.execute(step.id)
        rearmed = replace(task, retry_at=self.now + RETRY_MS)
        return Changes(tasks={step.id: rearmed}, outbox={key: OutboxEntry(key, HOOK, task.version)})


def chain() -> State:
    """`c` waits for `b`, which waits for `a`; somebody listens to `a`; `w` works."""
    return state(
        pending("a", timeout_at=200),
        pending("b", TARGETED, timeout_at=400),
        pending("c", TARGETED, timeout_at=300),
        pending("w", TARGETED),
        suspended("b"),
        suspended("c"),
        acquired("w"),
        callbacks=[("a", "b"), ("b", "c")],
        listeners=[("a", HOOK)],
    )


@pytest.mark.parametrize("now", [NOW, 200, 299, 300, 400, 999, 1000, 10_000])
def test_a_working_background_gets_everything_done(now: int) -> None:
    """Before, between and after the awaiters' deadlines, six rounds suffice and nothing is left."""
    background = Background(chain())
    assert background.run(now) <= 6
    assert enabled_steps(background.read(), now) == []


def test_an_awaiter_is_resumed_before_its_own_deadline_and_timed_out_after() -> None:
    """The control of the control: the same callback, drained at two instants."""
    early, late = Background(chain()), Background(chain())
    early.run(200)
    late.run(400)
    assert early.read().tasks["b"].state is TaskState.PENDING
    assert ("b", "a") in early.read().resumes
    assert late.read().tasks["b"].state is TaskState.FULFILLED


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ("promise.timeout", "EventuallyEveryPromiseSettles"),
        ("callback", "EventuallyAwaiterResumed"),
        ("quietly callback", "EventuallyAwaiterResumed"),
        ("listener", "EventuallyListenerNotified"),
        ("quietly listener", "EventuallyListenerNotified"),
    ],
)
def test_a_background_without_one_step_is_refuted(broken: str, name: str) -> None:
    """Each property is false of a background that leaves its step out, or does half of it."""
    with pytest.raises(PropertyViolated) as caught:
        Background(chain(), broken=broken).run(200)
    assert caught.value.name == name
    assert name in LIVENESS_NAMES


def test_without_background_steps_the_awaiter_stays_suspended() -> None:
    """What is awaited is settled, and nothing happens by itself."""
    start = state(resolved("a"), pending("b", TARGETED), suspended("b"), callbacks=[("a", "b")])
    with pytest.raises(PropertyViolated, match="EventuallyAwaiterResumed: a, b"):
        check_liveness(lambda: start, lambda step: None, NOW)
    assert start.tasks["b"].state is TaskState.SUSPENDED


def test_a_task_that_outlives_its_promise_is_refuted() -> None:
    """`EventuallyEveryTaskFulfils`: a dead promise's task is fulfilled, armed or not."""
    stuck = state(resolved("p", TARGETED), waiting("p"))
    with pytest.raises(PropertyViolated, match="EventuallyEveryTaskFulfils: p"):
        check_liveness(lambda: stuck, lambda step: None, NOW)


def test_what_is_not_armed_is_not_expected_to_settle() -> None:
    """Ours: internal promises are only projected, and a promise without a deadline never ends."""
    start = state(pending("internal", {}, timeout_at=50), pending("never", timeout_at=NEVER_MS))
    assert Background(start).run(NEVER_MS) == 0


def test_a_step_that_never_ends_is_found() -> None:
    """A retry that does not re-arm, an expiry that does not expire: still enabled after all rounds."""
    with pytest.raises(StepsNeverEndError, match=r"lease\.expire"):
        Background(chain(), broken="lease.expire").run(150)


def test_what_is_enabled_is_what_the_catalogue_says() -> None:
    """Deadlines, edges, leases, due tasks by their delivery, and schedules."""
    start = state(
        pending("late", timeout_at=100),
        pending("push", TARGETED),
        pending("pull", TARGETED),
        pending("timer", TARGETED),
        waiting("push"),
        waiting("pull", delivery=Delivery.PULL),
        waiting("timer", delivery=Delivery.NEVER),
        schedule("due", next_run_at=100),
        schedule("later", next_run_at=101),
    )
    assert enabled_steps(start, NOW) == [
        ("promise.timeout", "late", ""),
        ("task.retry", "push", ""),
        ("schedule.fire", "due", ""),
    ]
