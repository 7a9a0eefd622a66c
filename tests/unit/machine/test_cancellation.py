"""Canceling work in every state, and what it started (protocol B3)."""

from __future__ import annotations

import pytest

from kept.machine.background import ExpireLease, LookAtEntry
from kept.machine.cancellation import cancel_key
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.entries import CancelMode
from kept.protocol.limits import CANCEL_GRACE_MS, MAX_CANCELED_PER_COMMIT
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import (
    CancelRecord,
    CancelResult,
    FenceResult,
    HeartbeatResult,
)
from tests.unit.machine.world import World, create, fulfill, record, suspend

CANCELED = PromiseState.REJECTED_CANCELED
PENDING = PromiseState.PENDING


def cancel(
    world: World, id: str, *, force: bool = False, recursive: bool = True, reason: str | None = None
) -> CancelResult:
    mode = CancelMode.FORCE if force else CancelMode.REQUEST
    return world.ok(r.PromiseCancel(id, reason, mode, recursive), CancelResult)


def state(world: World, id: str) -> PromiseState:
    return world.stored(id).state


def children(world: World, parent: str, *ids: str, **tags: str) -> None:
    origin = world.stored(parent).origin
    for id in ids:
        world.create(id, parent=parent, origin=origin, **tags)


def beat(world: World, id: str, version: int) -> list[str] | None:
    refs = [r.TaskRef(id, version)]
    return world.ok(r.TaskHeartbeat("w", refs, report=True), HeartbeatResult).cancel


def entries(world: World) -> list[str]:
    return [key.name for key in world.entries]


# -- what is not running -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"external": "true"},
        {"timer": "true"},
        {"timer": "true", "target": "queue://q"},
        {"queue": "q"},
        {"queue": "q", "delay": "99999999"},
        {"target": "http://worker.test/hook"},
    ],
)
def test_what_never_started_is_settled_at_once(tags: dict[str, str]) -> None:
    """With or without a task: there is nothing to stop, and nothing is left to do."""
    world = World()
    world.create("a", **tags)
    result = cancel(world, "a", reason="not needed")
    assert (result.promise.state, result.cancel) == (CANCELED, None)
    assert result.promise.value.headers == {tag.CANCEL_REASON_HEADER: "not needed"}
    assert entries(world) == []
    assert world.claim("q") == []


def test_what_is_halted_is_settled_at_once() -> None:
    """Nobody will run it."""
    world = World()
    world.started("a")
    assert world.status(r.TaskHalt("a")) == 200
    assert cancel(world, "a").promise.state is CANCELED
    assert world.task("a").state is TaskState.FULFILLED


def test_what_is_settled_stays_as_it_is() -> None:
    """Also as resolved; what does not exist is a 404."""
    world = World()
    world.create("a")
    world.settle("a")
    for force in (False, True):
        assert cancel(world, "a", force=force).promise.state is PromiseState.RESOLVED
    assert entries(world) == []
    assert world.status(r.PromiseCancel("b")) == 404


def test_what_is_past_its_deadline_is_timed_out() -> None:
    """The deadline came first."""
    world = World()
    world.create("a", timeout_at=world.now + 5, queue="q")
    world.pass_time(5)
    assert cancel(world, "a").promise.state is PromiseState.REJECTED_TIMEDOUT


# -- what runs -----------------------------------------------------------------------------------------


def test_the_holder_is_told_and_ends_it() -> None:
    """By its heartbeats, until it fulfils as canceled; the reason goes into the value."""
    world = World()
    world.started("a")
    assert beat(world, "a", 1) == []
    result = cancel(world, "a", reason="changed my mind")
    ends_at = world.now + CANCEL_GRACE_MS
    assert result.promise.state is PENDING
    assert result.cancel == CancelRecord(
        CancelMode.REQUEST, world.now, 0, False, "changed my mind", ends_at
    )
    assert beat(world, "a", 1) == ["a"]
    assert beat(world, "a", 1) == ["a"]
    assert world.status(record("a", 1, "a.cleanup", released=["a"])) == 200
    assert world.status(fulfill("a", 1, CANCELED)) == 200
    assert world.stored("a").value.headers == {tag.CANCEL_REASON_HEADER: "changed my mind"}
    world.pass_time(CANCEL_GRACE_MS)
    world.settle_down()
    assert entries(world) == []


def test_code_may_end_in_its_own_way() -> None:
    """A request is a request: a result after it is a result."""
    world = World()
    world.started("a")
    cancel(world, "a")
    assert world.status(fulfill("a", 1)) == 200
    assert state(world, "a") is PromiseState.RESOLVED
    world.pass_time(CANCEL_GRACE_MS)
    world.settle_down()
    assert (state(world, "a"), entries(world)) == (PromiseState.RESOLVED, [])


def test_after_the_grace_it_is_stopped() -> None:
    """Not one millisecond before; the lease is lost then."""
    world = World()
    world.started("a", ttl=CANCEL_GRACE_MS * 2)
    cancel(world, "a", reason="slow")
    world.pass_time(CANCEL_GRACE_MS - 1)
    world.settle_down()
    world.fire(LookAtEntry(cancel_key("a")))
    assert state(world, "a") is PENDING
    world.pass_time(1)
    world.settle_down()
    assert state(world, "a") is CANCELED
    assert world.stored("a").value.headers == {tag.CANCEL_REASON_HEADER: "slow"}
    assert world.status(fulfill("a", 1)) == 409
    assert entries(world) == []


def test_a_suspended_task_is_woken_and_told_when_it_is_taken() -> None:
    """Without a resume; what it waits for stays as it is."""
    world = World()
    world.create("p", external="true")
    world.suspended("a", "p", target="queue://q")
    cancel(world, "a")
    assert world.task("a").state is TaskState.PENDING
    (lease,) = world.claim("q")
    assert (lease.task.version, lease.cancel_requested_at) == (2, world.now)
    assert state(world, "p") is PENDING
    # It cleans up: what it awaits now really waits.
    assert world.status(record("a", 2, "a.1", released=["a"])) == 200
    world.create("q", external="true")
    assert world.status(suspend("a", 2, "q")) == 200
    assert world.task("a").state is TaskState.SUSPENDED
    world.settle("q")
    (lease,) = world.claim("q")
    assert lease.released == ["a"]
    assert world.status(fulfill("a", 3, CANCELED)) == 200


def test_a_suspend_that_crosses_the_request_is_no_suspend() -> None:
    """The holder could not know: the next one is told at once, and may suspend."""
    world = World()
    world.create("p", external="true")
    world.started("a", target="queue://q")
    cancel(world, "a")
    assert world.status(suspend("a", 1, "p")) == 200
    assert world.task("a").state is TaskState.PENDING
    (lease,) = world.claim("q")
    assert lease.cancel_requested_at == world.now
    assert world.status(suspend("a", 2, "p")) == 200
    assert world.task("a").state is TaskState.SUSPENDED


def test_a_suspend_of_code_that_heard_is_one() -> None:
    """It heard by a heartbeat: that it did stands in the order of releases."""
    world = World()
    world.create("p", external="true")
    world.started("a", target="queue://q")
    cancel(world, "a")
    assert world.status(suspend("a", 1, "p", released=["a"])) == 200
    assert world.task("a").state is TaskState.SUSPENDED


def test_whoever_takes_it_after_a_crash_is_told() -> None:
    """And again after the next one."""
    world = World()
    world.started("a", target="queue://q", ttl=1_000)
    cancel(world, "a")
    requested_at = world.now
    for version in (2, 3):
        world.pass_time(20_000)
        world.fire(ExpireLease("a"))
        world.pass_time(5_000)
        world.settle_down()
        (lease,) = world.claim("q", ttl=1_000)
        assert (lease.task.version, lease.cancel_requested_at) == (version, requested_at)


def test_force_settles_at_once_and_upgrades_a_request() -> None:
    """A request after it changes nothing."""
    world = World()
    for id in ("a", "b"):
        world.started(id)
    assert cancel(world, "a", force=True).promise.state is CANCELED
    assert world.status(fulfill("a", 1)) == 409
    assert cancel(world, "b").promise.state is PENDING
    again = cancel(world, "b")
    assert (again.promise.state, again.cancel) == (PENDING, cancel(world, "b").cancel)
    assert cancel(world, "b", force=True).promise.state is CANCELED
    assert cancel(world, "b").promise.state is CANCELED
    assert entries(world) == []


def test_a_lost_lease_cancels_nobody() -> None:
    """A fenced cancellation works only while the lease holds; never on the task's own promise."""
    world = World()
    world.started("a")
    world.create("b", queue="q")
    action = r.CancelAction(r.PromiseCancel("b"))
    assert world.status(r.TaskFence("a", 2, action)) == 409
    assert world.status(r.TaskFence("a", 1, r.CancelAction(r.PromiseCancel("a")))) == 400
    assert state(world, "b") is PENDING
    inner = world.ok(r.TaskFence("a", 1, action), FenceResult).action
    assert (inner.kind, inner.head.status) == ("promise.cancel", 200)
    assert state(world, "b") is CANCELED


# -- what it started -------------------------------------------------------------------------------------


def test_it_spreads_to_descendants_node_before_children() -> None:
    """Each is canceled as if by itself; the count is the root's; all entries go."""
    world = World()
    world.started("r", target="queue://q")
    children(world, "r", "r.1", "r.2", queue="q")
    children(world, "r", "r.approval", external="true")
    children(world, "r.1", "r.1.1", queue="q")
    children(world, "r.1.1", "r.1.1.1")
    assert len(world.claim("q")) == 3
    result = cancel(world, "r")
    assert result.cancel is not None
    assert result.cancel.spreading
    for asked, done in (
        (["r"], []),
        (["r", "r.1", "r.2"], ["r.approval"]),
        (["r", "r.1", "r.1.1", "r.2"], ["r.approval"]),
        (["r", "r.1", "r.1.1", "r.2"], ["r.1.1.1", "r.approval"]),
    ):
        stored = [world.stored(id) for id in sorted(world.dump.promises)]
        assert [each.id for each in stored if each.cancel_requested_at is not None] == asked
        assert [each.id for each in stored if each.state is CANCELED] == done
        world.fire(*world._due())
    progress = cancel(world, "r").cancel
    assert progress is not None
    assert (progress.descendants, progress.spreading) == (5, False)
    world.pass_time(CANCEL_GRACE_MS)
    world.settle_down()
    assert all(not promise.pending for promise in world.dump.promises.values())
    assert entries(world) == []


def test_what_it_does_not_spread_to() -> None:
    """Detached work, other origins; at first the clean-up and timers of code that runs."""
    world = World()
    world.started("r")
    children(world, "r", "r.detached", queue="q", detached="true")
    world.create("alien", parent="r", queue="q")
    children(world, "r", "r.cleanup", queue="q", compensation="true")
    children(world, "r", "r.timer", timer="true")
    children(world, "r", "r.call", queue="q")
    cancel(world, "r")
    world.settle_down()
    assert [id for id in sorted(world.dump.promises) if not world.stored(id).pending] == ["r.call"]
    cancel(world, "r", force=True)
    world.settle_down()
    left = [id for id in sorted(world.dump.promises) if world.stored(id).pending]
    assert left == ["alien", "r.detached"]
    assert entries(world) == []


def test_without_recursion_children_go_on() -> None:
    """Until somebody asks for it."""
    world = World()
    world.started("r")
    children(world, "r", "r.1", queue="q")
    cancel(world, "r", recursive=False)
    world.settle_down()
    assert state(world, "r.1") is PENDING
    cancel(world, "r")
    world.settle_down()
    assert state(world, "r.1") is CANCELED


def test_the_end_of_the_grace_takes_the_clean_up_too() -> None:
    """Whatever is left of the tree is settled with its root."""
    world = World()
    world.started("r", ttl=CANCEL_GRACE_MS * 2)
    cancel(world, "r")
    children(world, "r", "r.cleanup", queue="q", compensation="true")
    children(world, "r.cleanup", "r.cleanup.1", queue="q")
    world.pass_time(CANCEL_GRACE_MS)
    world.settle_down()
    assert all(promise.state is CANCELED for promise in world.dump.promises.values())
    assert entries(world) == []


def test_a_circle_of_parents_comes_to_an_end() -> None:
    """Each node once, whatever tags say."""
    world = World()
    world.create("a", parent="b", origin="o", queue="q")
    world.create("b", parent="a", origin="o", queue="q")
    world.create("c", parent="c", origin="o", queue="q")
    world.claim("q")
    for id in ("a", "c"):
        cancel(world, id)
        world.settle_down()
    world.pass_time(CANCEL_GRACE_MS)
    world.settle_down()
    assert {state(world, id) for id in "abc"} == {CANCELED}
    assert entries(world) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_commit_reaches_a_bounded_number(*, force: bool) -> None:
    """However wide the tree is, and however many nodes spread at one time."""
    world = World(watched=False)
    world.started("r")
    for number in range(40):
        children(world, "r", f"r.{number}")
        children(world, f"r.{number}", *(f"r.{number}.{leaf}" for leaf in range(60)))
    before = _canceled(world)
    cancel(world, "r", force=force)
    while steps := list(world._due()):
        world.fire(*steps)
        assert 0 < _canceled(world) - before <= MAX_CANCELED_PER_COMMIT
        before = _canceled(world)
        if before == 40 * 61 + force:
            break
    world.settle_down()
    assert _canceled(world) == 40 * 61 + force
    world.pass_time(CANCEL_GRACE_MS)
    world.settle_down()
    assert entries(world) == []


def _canceled(world: World) -> int:
    return sum(promise.state is CANCELED for promise in world.dump.promises.values())


def test_a_wide_page_loads_in_few_rounds() -> None:
    """What a page of children needs is loaded together."""
    world = World(watched=False)
    world.started("r")
    children(world, "r", *(f"r.{number}" for number in range(300)), queue="q")
    world.claim("q", limit=300)
    for force in (False, True):
        cancel(world, "r", force=force)
        before = world.loads
        world.fire(LookAtEntry(cancel_key("r")))
        assert world.loads - before < 10
    assert _canceled(world) == 301


def test_within_one_commit() -> None:
    """What a batch creates before the cancellation is reached by it, and what it settles is not."""
    world = World()
    world.started("r", target="queue://q")
    tags = {"resonate:parent": "r", "resonate:origin": "r", "resonate:target": "queue://q"}
    world.batch(
        [
            create("r.1", parent="r", origin="r", queue="q"),
            create("r.2", parent="r", origin="r", queue="q"),
            r.PromiseSettle("r.2", PromiseState.RESOLVED),
            r.PromiseCancel("r"),
            r.PromiseCreate("r.3", 2**52, tags=tags),
        ]
    )
    world.settle_down()
    states = [state(world, id) for id in ("r.1", "r.2", "r.3")]
    assert states == [CANCELED, PromiseState.RESOLVED, CANCELED]


@pytest.mark.parametrize("reason", ["x" * 2_000, "nul \0", "ü" * 600])
def test_reasons_are_short_texts(reason: str) -> None:
    """Others are refused before anything is looked at."""
    world = World()
    world.create("a")
    assert world.status(r.PromiseCancel("a", reason)) == 400
