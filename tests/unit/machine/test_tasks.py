"""The task requests (protocol A4): who may do what, in every state of the task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kept.protocol import requests as r
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import AcquiredTask, FenceResult, PreloadResult, PromiseResult
from kept.protocol.storage import Edge
from tests.unit.machine.world import PUSHED, START_MS, World, create, fulfill, record, suspend

TTL = 10_000


def _pending(world: World) -> int:
    world.create("t", target=PUSHED)
    return 0


def _acquired(world: World) -> int:
    world.started("t", ttl=TTL)
    return 1


def _suspended(world: World) -> int:
    world.create("awaited", external="true")
    world.suspended("t", "awaited", ttl=TTL)
    return 1


def _halted(world: World) -> int:
    world.started("t", ttl=TTL)
    assert world.status(r.TaskHalt("t")) == 200
    return 1


def _fulfilled(world: World) -> int:
    world.started("t", ttl=TTL)
    assert world.status(fulfill("t", 1)) == 200
    return 1


def _late(world: World) -> int:
    """Acquired, past the deadline of its promise, which nobody has stored."""
    world.started("t", ttl=TTL, timeout_at=START_MS + 5)
    world.pass_time(5)
    return 1


Setup = Callable[[World], int]
STATES: dict[str, Setup] = {
    "pending": _pending,
    "acquired": _acquired,
    "suspended": _suspended,
    "halted": _halted,
    "fulfilled": _fulfilled,
    "late": _late,
}
CHILD = create("child", external="true")


def _requests(version: int) -> dict[str, r.Request]:
    """Every request on task `t`, naming `version` where one is named."""
    return {
        "acquire": r.TaskAcquire("t", version, "w", TTL),
        "create": r.TaskCreate("w", TTL, r.CreateAction(create("t", target=PUSHED))),
        "release": r.TaskRelease("t", version),
        "fulfill": fulfill("t", version),
        "suspend": suspend("t", version, "other"),
        "fence": r.TaskFence("t", version, r.CreateAction(CHILD)),
        "record": record("t", version, "child"),
        "nack": r.TaskNack("t", version),
        "halt": r.TaskHalt("t"),
        "continue": r.TaskContinue("t"),
    }


UNDER_A_LEASE = ("release", "fulfill", "suspend", "fence", "record", "nack")
ALLOWED = {
    "pending": {"acquire", "create", "halt"},
    "acquired": {*UNDER_A_LEASE, "halt"},
    "suspended": {"halt"},
    "halted": {"halt", "continue"},
    "fulfilled": {"create"},
    "late": {"create"},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", _requests(0))
def test_each_request_in_each_state(state: str, kind: str) -> None:
    """A request succeeds in the states that the protocol names and is a 409 in all others, which
    leaves the task as it was; past the promise's deadline the task counts as fulfilled (C4, C8)."""
    world = World()
    world.create("other", external="true")
    version = STATES[state](world)
    before = world.task("t")
    response = world.ask(_requests(version)[kind])
    if kind in ALLOWED[state]:
        assert response.status == 200, response
    else:
        assert response.status == 409, response
        if state != "late":
            assert world.task("t") == before
    if state == "late":
        assert world.stored("t").state is PromiseState.REJECTED_TIMEDOUT
        assert world.task("t").state is TaskState.FULFILLED


@pytest.mark.parametrize("kind", UNDER_A_LEASE)
@pytest.mark.parametrize("version", [0, 2])
def test_a_stale_version_is_refused(kind: str, version: int) -> None:
    """Whoever names another version than the lease's gets 409, and nothing is stored: not the
    task, not the child, not the release numbers."""
    world = World()
    world.create("other", external="true")
    _acquired(world)
    request = _requests(version)[kind]
    if hasattr(request, "released"):
        request.released = ["other"]
    before = world.dump
    assert world.status(request) == 409
    assert world.dump == before


@pytest.mark.parametrize("kind", [kind for kind in _requests(0) if kind != "create"])
def test_a_task_that_does_not_exist_is_not_found(kind: str) -> None:
    """404, also where a promise without a task has the id."""
    world = World()
    world.create("other", external="true")
    assert world.status(_requests(0)[kind]) == 404
    world.create("t", external="true")
    assert world.status(_requests(0)[kind]) == 404


def test_acquire_gives_the_lease_to_one() -> None:
    """The version rises by one and names the lease; the next acquire at the old version, or by
    another at the new one, is refused (C10)."""
    world = World()
    world.create("t", target=PUSHED)
    assert world.status(r.TaskAcquire("t", 1, "w", TTL)) == 409
    lease = world.ok(r.TaskAcquire("t", 0, "w", TTL), AcquiredTask)
    assert (lease.task.version, lease.task.pid, lease.task.ttl) == (1, "w", TTL)
    assert world.task("t").expires_at == START_MS + TTL
    for version in (0, 1):
        assert world.status(r.TaskAcquire("t", version, "v", TTL)) == 409


def test_a_pending_task_may_be_acquired_before_its_delay() -> None:
    """By id a delay does not bind (A3)."""
    world = World()
    world.create("t", target=PUSHED, delay=str(START_MS + 1_000))
    assert world.task("t").retry_at == START_MS + 1_000
    assert world.status(r.TaskAcquire("t", 0, "w", TTL)) == 200


def test_task_create() -> None:
    """New: acquired at version 1. Existing and pending: acquired at the next version. Born past its
    deadline: 200, fulfilled at version 0, no lease. A promise without a target: 422; a request
    without one: 400."""
    world = World()
    assert world.started("new").task.version == 1
    world.create("pending", target=PUSHED)
    world.ok(r.TaskAcquire("pending", 0, "w", TTL), AcquiredTask)
    world.ask(r.TaskRelease("pending", 1))
    assert world.started("pending").task.version == 2
    late = world.started("late", timeout_at=START_MS)
    assert (late.task.state.value, late.task.version) == ("fulfilled", 0)
    assert (late.task.pid, late.task.ttl) == (None, None)
    world.create("plain", external="true")
    for id, tags, status in (("plain", {"target": PUSHED}, 422), ("x", {"external": "true"}, 400)):
        action = r.CreateAction(create(id, **tags))
        assert world.status(r.TaskCreate("w", TTL, action)) == status


def test_release_hands_back_at_once() -> None:
    """Pending and due now, at the same version, without a lease; failures are not counted."""
    world = World()
    _acquired(world)
    world.pass_time(5)
    assert world.status(r.TaskRelease("t", 1)) == 200
    task = world.task("t")
    assert (task.state, task.version, task.retry_at) == (TaskState.PENDING, 1, world.now)
    assert (task.pid, task.ttl, task.expires_at, task.failures) == (None, None, None, 0)


def test_fulfill_settles_its_own_promise_only() -> None:
    """The promise gets the verdict, the task is fulfilled in the same step; another id is a 400."""
    world = World()
    _acquired(world)
    other = r.TaskFulfill("t", 1, r.SettleAction(r.PromiseSettle("u", PromiseState.RESOLVED)))
    assert world.status(other) == 400
    result = world.ok(fulfill("t", 1, PromiseState.REJECTED), PromiseResult)
    assert result.promise.state is PromiseState.REJECTED
    assert world.task("t").state is TaskState.FULFILLED
    assert world.task("t").version == 1


def test_suspend_waits_for_all() -> None:
    """A callback on each awaited promise, the lease is gone; any of them wakes the task, which is
    due now at the same version with that one as its resume."""
    world = World()
    for id in ("a", "b"):
        world.create(id, external="true")
    world.started("t")
    assert world.status(suspend("t", 1, "a", "b")) == 200
    assert world.dump.callbacks == {Edge("a", "t"), Edge("b", "t")}
    task = world.task("t")
    assert (task.state, task.pid, task.expires_at) == (TaskState.SUSPENDED, None, None)
    world.pass_time(3)
    world.settle("b")
    task = world.task("t")
    assert (task.state, task.version, task.retry_at) == (TaskState.PENDING, 1, world.now)
    assert world.dump.resumes == {Edge("t", "b")}
    world.settle("a")
    assert world.task("t").resumes == 2
    lease = world.ok(r.TaskAcquire("t", 1, "w", TTL), AcquiredTask)
    assert (lease.task.version, lease.task.resumes) == (2, 0)
    assert not world.dump.resumes


@pytest.mark.parametrize("late", [False, True])
def test_suspend_on_something_settled_goes_on(*, late: bool) -> None:
    """300 with the preload: the task stays acquired, its resumes are cleared and no callback is
    stored; a deadline that has passed counts as settled."""
    world = World()
    world.create("done", external="true", timeout_at=START_MS + 1 if late else 2**52)
    world.create("open", external="true")
    world.create("earlier", external="true")
    world.started("t")
    world.ask(r.PromiseRegisterCallback("earlier", "t"))
    world.settle("earlier")
    assert world.task("t").resumes == 1
    if not late:
        world.settle("done")
    world.pass_time(1)
    response = world.ask(suspend("t", 1, "open", "done"))
    assert response.status == 300
    assert isinstance(response.data, PreloadResult)
    assert world.state_of("t") == "acquired"
    assert world.task("t").resumes == 0
    assert not world.dump.callbacks
    assert not world.dump.resumes


@pytest.mark.parametrize(
    ("awaited", "status"),
    [((), 400), (("t",), 400), (("a", "a"), 400), (("a", "none"), 422), (("a", "plain"), 422)],
)
def test_suspend_refuses_what_cannot_be_awaited(awaited: tuple[str, ...], status: int) -> None:
    """Nothing, itself, one twice: 400. Missing or internal: 422. The lease stays, nothing is
    stored."""
    world = World()
    world.create("a", external="true")
    world.create("plain")
    world.started("t")
    before = world.dump
    assert world.status(suspend("t", 1, *awaited)) == status
    assert world.dump == before


def test_suspend_takes_callbacks_of_its_own_only() -> None:
    """An action for another awaiter is a 400."""
    world = World()
    world.create("a", external="true")
    world.started("t")
    action = r.CallbackAction(r.PromiseRegisterCallback("a", "other"))
    assert world.status(r.TaskSuspend("t", 1, [action])) == 400


def test_a_fence_does_its_action_under_the_lease() -> None:
    """The inner answer, 200, 400 or 404, travels in an outer 200 with the action's correlation id
    and an empty preload (A7.4)."""
    world = World()
    world.started("t")
    for action, kind, status in (
        (r.CreateAction(CHILD, {"corrId": "7"}), "promise.create", 200),
        (r.CreateAction(create("bad", target="nowhere"), {"corrId": "7"}), "promise.create", 400),
        (
            r.SettleAction(r.PromiseSettle("none", PromiseState.RESOLVED), {"corrId": "7"}),
            "promise.settle",
            404,
        ),
        (
            r.SettleAction(r.PromiseSettle("child", PromiseState.PENDING), {"corrId": "7"}),
            "promise.settle",
            400,
        ),
        (
            r.SettleAction(r.PromiseSettle("child", PromiseState.REJECTED), {"corrId": "7"}),
            "promise.settle",
            200,
        ),
    ):
        result = world.ok(r.TaskFence("t", 1, action), FenceResult)
        assert (result.action.kind, result.action.head.status) == (kind, status)
        assert result.action.head.corr_id == "7"
        assert result.preload == []
        assert isinstance(result.action.data, PromiseResult) == (status == 200)
    own = r.SettleAction(r.PromiseSettle("t", PromiseState.RESOLVED))
    assert world.status(r.TaskFence("t", 1, own)) == 400


def test_record_is_a_finished_step() -> None:
    """A new child is created and settled; one that exists pending is settled; one that is settled
    keeps its record; one past its deadline is answered as timed out."""
    world = World()
    world.started("t")
    made = world.ok(record("t", 1, "new"), PromiseResult).promise
    assert (made.state, made.created_at, made.settled_at) == (
        PromiseState.RESOLVED,
        START_MS,
        START_MS,
    )
    world.create("open", external="true", parent="t")
    rejected = world.ok(record("t", 1, "open", state=PromiseState.REJECTED), PromiseResult).promise
    assert rejected.state is PromiseState.REJECTED
    again = world.ok(record("t", 1, "open"), PromiseResult).promise
    assert again == rejected
    late = world.ok(record("t", 1, "late", timeout_at=START_MS), PromiseResult).promise
    assert late.state is PromiseState.REJECTED_TIMEDOUT
    assert world.status(record("t", 1, "t")) == 400
    assert world.status(record("t", 1, "x", state=PromiseState.PENDING)) == 400


def test_heartbeat_extends_what_is_held() -> None:
    """Each lease that matches id, version and pid and is live lives for its own ttl from now on;
    all others are ignored, and the answer is 200 (C7)."""
    world = World()
    world.started("mine", ttl=100)
    world.started("late", ttl=100, timeout_at=START_MS + 50)
    world.started("theirs", ttl=100, pid="v")
    world.create("pending", target=PUSHED)
    world.pass_time(60)
    refs = [r.TaskRef(id, 1) for id in ("mine", "late", "theirs", "none")]
    refs += [r.TaskRef("pending", 0), r.TaskRef("mine", 2)]
    response = world.ask(r.TaskHeartbeat("w", refs))
    assert response.status == 200
    assert world.task("mine").expires_at == world.now + 100
    assert world.task("theirs").expires_at == START_MS + 100
    assert world.state_of("late") == "fulfilled"


def test_an_expired_lease_that_nobody_reaped_still_holds() -> None:
    """Only background step 4 looks at expiresAt (A3)."""
    world = World()
    world.started("t", ttl=10)
    world.pass_time(1_000)
    world.ask(r.TaskHeartbeat("w", [r.TaskRef("t", 1)]))
    assert world.task("t").expires_at == world.now + 10
    world.pass_time(1_000)
    assert world.status(fulfill("t", 1)) == 200


@pytest.mark.parametrize("state", ["pending", "acquired", "suspended", "halted"])
def test_halt_and_continue(state: str) -> None:
    """halt parks a live task from any state and may be repeated; continue makes it pending and due
    now at the same version; resumes that came meanwhile stay."""
    world = World()
    version = STATES[state](world)
    for _ in range(2):
        assert world.status(r.TaskHalt("t")) == 200
    task = world.task("t")
    assert (task.state, task.pid, task.expires_at, task.retry_at) == (
        TaskState.HALTED,
        None,
        None,
        None,
    )
    if state == "suspended":
        world.settle("awaited")
        assert world.task("t").state is TaskState.HALTED
        assert world.task("t").resumes == 1
    world.pass_time(9)
    assert world.status(r.TaskContinue("t")) == 200
    task = world.task("t")
    assert (task.state, task.version, task.retry_at) == (TaskState.PENDING, version, world.now)
    assert task.resumes == (1 if state == "suspended" else 0)


@pytest.mark.parametrize("state", ["pending", "acquired", "suspended", "halted"])
def test_settling_a_promise_fulfils_its_task(state: str) -> None:
    """In the same step, from any state; lease, retry and resumes are cleared."""
    world = World()
    version = STATES[state](world)
    world.ask(r.PromiseSettle("t", PromiseState.RESOLVED))
    task = world.task("t")
    assert (task.state, task.version) == (TaskState.FULFILLED, version)
    assert (task.pid, task.ttl, task.expires_at, task.retry_at, task.resumes) == (
        None,
        None,
        None,
        None,
        0,
    )
