"""Reports of lost leases, the order of release, and what a replay preloads (protocol B3)."""

from __future__ import annotations

import pytest

from kept.machine import preload
from kept.machine.background import ExpireLease
from kept.protocol import requests as r
from kept.protocol.limits import MAX_PRELOAD_BYTES
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import AcquiredTask, HeartbeatResult, PreloadResult
from kept.protocol.storage import Edge
from tests.unit.machine.world import PUSHED, START_MS, World, create, fulfill, record, suspend


def _reason(world: World, version: int = 1, pid: str = "w") -> str | None:
    request = r.TaskHeartbeat(pid, [r.TaskRef("t", version)], report=True)
    result = world.ok(request, HeartbeatResult)
    assert result.lost is not None
    assert all((lost.id, lost.version) == ("t", version) for lost in result.lost)
    return result.lost[0].reason if result.lost else None


def test_a_report_says_why_a_lease_is_lost() -> None:
    """Each way to lose a lease has its reason; one that is held is not in the list."""
    world = World()
    assert _reason(world) == "unknown"
    world.started("t", ttl=10)
    assert _reason(world) is None
    assert _reason(world, version=2) == "superseded"
    assert _reason(world, pid="v") == "superseded"
    world.pass_time(10)
    world.fire(ExpireLease("t"))
    assert _reason(world) == "expired"
    world.ok(r.TaskAcquire("t", 1, "v", 10), AcquiredTask)
    assert _reason(world) == "superseded"
    world.ask(r.TaskHalt("t"))
    assert _reason(world) == "halted"
    world.settle("t")
    assert _reason(world) == "settled"


def test_a_report_shows_a_deadline_that_nobody_stored() -> None:
    """A lease of a promise past its deadline is settled, and is not extended."""
    world = World()
    world.started("t", ttl=1_000, timeout_at=START_MS + 5)
    world.pass_time(5)
    assert _reason(world) == "settled"
    assert world.task("t").expires_at is None


def test_without_report_nothing_is_said() -> None:
    """The base protocol's answer is empty."""
    world = World()
    response = world.ask(r.TaskHeartbeat("w", [r.TaskRef("none", 1)]))
    assert response.status == 200
    assert not isinstance(response.data, HeartbeatResult)


def _with_children(*ids: str) -> World:
    world = World()
    world.started("t", queue="q")
    for id in ids:
        world.ask(record("t", 1, id))
    return world


def test_each_request_under_the_lease_numbers_what_it_releases() -> None:
    """record, fence, suspend and fulfil give the next numbers in the order of their lists, across
    requests; the first number of an id stays."""
    world = _with_children("a", "b", "c", "d", "e")
    world.create("open", external="true")
    world.ask(record("t", 1, "x", released=["c", "a"]))
    settle = r.SettleAction(r.PromiseSettle("x", PromiseState.RESOLVED))
    world.ask(r.TaskFence("t", 1, settle, released=["e", "c"]))
    world.ask(suspend("t", 1, "open", released=["b"]))
    numbers = world.dump.releases
    assert sorted(numbers, key=numbers.__getitem__) == [
        Edge("t", id) for id in ("c", "a", "e", "b")
    ]
    world.settle("open")
    world.ok(r.TaskAcquire("t", 1, "w", 10), AcquiredTask)
    world.ask(fulfill("t", 2, released=["d"]))
    numbers = world.dump.releases
    assert max(numbers, key=numbers.__getitem__) == Edge("t", "d")


@pytest.mark.parametrize("together", [False, True])
def test_a_lease_names_what_was_released_in_order(*, together: bool) -> None:
    """The next holder gets the released ones in their order, then the other children by id, also
    where the last holder's requests are in the same commit as its claim."""
    world = _with_children("a", "b", "c", "d")
    world.create("awaited", external="true")
    world.create("by-branch", branch="t")
    world.settle("awaited")
    requests: list[r.Request] = [
        record("t", 1, "e", released=["d", "awaited"]),
        suspend("t", 1, "awaited", released=["b"]),
        r.TaskRelease("t", 1),
        r.TaskClaim(["q"], "w", 10),
    ]
    answers = world.batch(requests) if together else [world.ask(each) for each in requests]
    assert [answer.status for answer in answers] == [200, 300, 200, 200]
    suspended = answers[1].data
    assert isinstance(suspended, PreloadResult)
    (lease,) = answers[3].data.tasks  # type: ignore[union-attr]
    assert lease.released == ["d", "awaited", "b"]
    order = ["d", "awaited", "b", "a", "by-branch", "c", "e"]
    assert [promise.id for promise in lease.preload] == order
    assert [promise.id for promise in suspended.preload] == order
    assert all(promise.id != "t" for promise in lease.preload)


def test_every_way_to_a_lease_preloads() -> None:
    """acquire, task.create on a pending task, claim and a suspend that goes on show the children;
    `preload: 0` shows none."""
    world = _with_children("a")
    world.create("done", external="true")
    world.settle("done")
    action = r.CreateAction(create("t", target=PUSHED))
    version = 1
    for limit, expected in ((None, ["a"]), (0, [])):
        for request in (
            r.TaskClaim(["q"], "w", 10, preload=limit),
            r.TaskAcquire("t", version + 1, "w", 10, preload=limit),
            r.TaskCreate("w", 10, action, preload=limit),
        ):
            world.ask(r.TaskRelease("t", version))
            data = world.ask(request).data
            lease = data if isinstance(data, AcquiredTask) else data.tasks[0]  # type: ignore[union-attr]
            assert [promise.id for promise in lease.preload] == expected, request
            version += 1
        again = world.ask(suspend("t", version, "done", preload=limit))
        assert [p.id for p in again.data.preload] == expected  # type: ignore[union-attr]


def test_a_preload_is_projected() -> None:
    """Children past their deadline are shown as settled, and stored so."""
    world = World()
    world.started("t", queue="q")
    world.create("late", parent="t", timeout_at=START_MS + 5)
    world.ask(r.TaskRelease("t", 1))
    world.pass_time(5)
    (lease,) = world.claim("q")
    assert lease.preload[0].state is PromiseState.REJECTED_TIMEDOUT
    assert not world.stored("late").pending


def test_a_preload_ends_at_its_bytes() -> None:
    """At least one record, then as many as fit into the bound, and a cursor for the rest."""
    world = World(watched=False)
    world.started("t", queue="q")
    big = Value(data="x" * (MAX_PRELOAD_BYTES // 2 - 100))
    for number in range(4):
        step = create(f"c{number}", param=big, parent="t")
        world.ask(r.TaskRecordStep("t", 1, step, PromiseState.RESOLVED))
    world.ask(r.TaskRelease("t", 1))
    (lease,) = world.claim("q")
    assert [promise.id for promise in lease.preload] == ["c0", "c1"]
    assert lease.more == preload.children_cursor("c1", released=False)


def test_releasing_what_does_not_exist_harms_nothing() -> None:
    """An id that is no promise's is left out of what the next holder is told."""
    world = _with_children("a")
    world.ask(record("t", 1, "b", released=["none", "a"]))
    answers = world.batch([r.TaskRelease("t", 1), r.TaskClaim(["q"], "w", 10)])
    (lease,) = answers[1].data.tasks  # type: ignore[union-attr]
    assert lease.released == ["a"]
    assert [promise.id for promise in lease.preload] == ["a", "b"]
