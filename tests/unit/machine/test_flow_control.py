"""Limits of queues and lanes, turns among lanes, depth (protocol B2)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kept.machine.background import ExpireLease
from kept.protocol import requests as r
from kept.protocol.entries import (
    AnnouncedFunction,
    Depth,
    EntryKey,
    EntryKind,
    LaneLimits,
    RateLimit,
)
from kept.protocol.limits import DEFAULT_AGING_MS
from kept.protocol.responses import AcquiredTask, ClaimResult, QueueResult
from kept.protocol.worker_requests import WorkerAnnounce
from tests.unit.machine.world import World, create, fulfill, suspend


def put(world: World, **settings: object) -> None:
    """Settings of the queue q."""
    world.ok(r.QueuePut("q", **settings), QueueResult)  # type: ignore[arg-type]


def claimed(world: World, limit: int = 100, **options: object) -> list[str]:
    return [lease.task.id for lease in world.claim("q", limit=limit, **options)]


def limited(world: World) -> list[tuple[str, int | None]]:
    """Why a claim on the queue got nothing."""
    result = world.ok(r.TaskClaim(["q"], "w", 10_000), ClaimResult)
    assert result.tasks == []
    return [(each.reason, each.retry_at) for each in result.limited or ()]


def jobs(world: World, *ids: str, lane: str | None = None) -> None:
    for id in ids:
        world.create(id, queue="q", **({} if lane is None else {"lane": lane}))


# -- settings ----------------------------------------------------------------------------------------


def test_settings_are_put_changed_and_forgotten() -> None:
    """Absent fields stay, null takes one back, putting the same again changes nothing."""
    world = World()
    assert world.status(r.QueueGet("q")) == 404
    put(world, concurrency=3, rate=RateLimit(5, 1_000))
    put(world, aging=7)
    put(world, aging=7)
    queue = world.ok(r.QueueGet("q"), QueueResult).queue
    assert (queue.concurrency, queue.rate, queue.aging) == (3, RateLimit(5, 1_000), 7)
    put(world, concurrency=None)
    assert world.ok(r.QueueGet("q"), QueueResult).queue.concurrency is None
    assert world.status(r.QueueDelete("q")) == 200
    assert world.status(r.QueueDelete("q")) == 404
    assert world.status(r.QueueGet("q")) == 404


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"max_depth": 0},
        {"rate": RateLimit(0, 1)},
        {"rate": RateLimit(1, 0)},
        {"lane": LaneLimits(concurrency=0)},
        {"lane": LaneLimits(weight=0)},
        {"lanes": {"": LaneLimits()}},
        {"lanes": {"a": LaneLimits(rate=RateLimit(1, 0))}},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    """A limit below one, a period of nothing, a lane without a name."""
    assert World().status(r.QueuePut("q", **settings)) == 400  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "a\n", "queue://q", "x" * 257, "\ud800"])
def test_what_is_no_queue_s_name_is_refused(name: str) -> None:
    """A job cannot be there, so its settings, a claim and a worker of it would be of no effect."""
    world = World()
    for request in (
        r.QueuePut(name),
        r.QueuePause(name),
        r.QueueStats(name),
        r.TaskClaim(["q", name], "w", 1),
        WorkerAnnounce("w", [name], [], 1),
        WorkerAnnounce("w", ["q"], [AnnouncedFunction("f", 1, name)], 1),
        create("job", queue=name),
    ):
        assert world.status(request) == 400, request


# -- pause -------------------------------------------------------------------------------------------


def test_a_paused_queue_starts_nothing_and_takes_what_comes() -> None:
    """Claims get nothing and are told why, acquire and task.create are refused, create is not."""
    world = World()
    jobs(world, "a")
    world.ok(r.QueuePause("q"), QueueResult)
    assert limited(world) == [("paused", None)]
    assert world.status(r.TaskAcquire("a", 0, "w", 1_000)) == 409
    action = r.CreateAction(create("b", queue="q"))
    assert world.status(r.TaskCreate("w", 1_000, action)) == 409
    assert "b" not in world.dump.promises
    assert world.create("c", queue="q").status == 200
    world.ok(r.QueueResume("q"), QueueResult)
    assert claimed(world) == ["a", "c"]


def test_a_pause_leaves_running_work_alone() -> None:
    """What is held may go on, suspend, and be woken; only then does it wait."""
    world = World()
    jobs(world, "a")
    world.create("x", external="true")
    assert claimed(world) == ["a"]
    world.ok(r.QueuePause("q"), QueueResult)
    assert world.status(suspend("a", 1, "x")) == 200
    world.settle("x")
    assert world.state_of("a") == "pending"
    assert limited(world) == [("paused", None)]


# -- concurrency -------------------------------------------------------------------------------------


def test_no_more_run_than_the_limit() -> None:
    """By whatever way a task is acquired; each way out gives the slot back."""
    world = World()
    jobs(world, "a", "b", "c", "d")
    put(world, concurrency=2)
    assert claimed(world) == ["a", "b"]
    assert limited(world) == [("concurrency", None)]
    assert world.status(r.TaskAcquire("c", 0, "w", 1_000)) == 429
    assert world.status(r.TaskCreate("w", 1, r.CreateAction(create("e", queue="q")))) == 429
    assert world.status(fulfill("a", 1)) == 200
    assert claimed(world) == ["c"]
    assert world.status(r.TaskRelease("b", 1)) == 200
    assert claimed(world) == ["b"]
    world.pass_time(10_000)
    world.fire(ExpireLease("b"))
    assert claimed(world, limit=1) == ["d"]


def test_a_limit_holds_within_one_commit() -> None:
    """Claims, a fulfilment and claims again in one batch see each other."""
    world = World()
    jobs(world, *"abcdef")
    put(world, concurrency=2)
    claim = r.TaskClaim(["q"], "w", 10_000, 5)
    answers = world.batch([claim, claim, fulfill("a", 1), claim])
    got = [
        [lease.task.id for lease in answer.data.tasks]
        for answer in answers
        if isinstance(answer.data, ClaimResult)
    ]
    assert got == [["a", "b"], [], ["c"]]


def test_a_lower_limit_holds_as_soon_as_it_is_put() -> None:
    """What already runs above it counts; nothing starts until enough has ended."""
    world = World()
    jobs(world, *"abcd")
    assert claimed(world, limit=3) == ["a", "b", "c"]
    put(world, concurrency=2)
    assert world.status(fulfill("a", 1)) == 200
    assert claimed(world) == []
    assert world.status(fulfill("b", 1)) == 200
    assert claimed(world) == ["d"]


def test_a_lane_has_a_limit_of_its_own() -> None:
    """A lane at its limit is passed over and others go on; one may have another limit."""
    world = World()
    jobs(world, "a1", "a2", "a3", lane="a")
    jobs(world, "b1", "b2", "b3", lane="b")
    put(world, lane=LaneLimits(concurrency=1), lanes={"b": LaneLimits(concurrency=2)})
    assert sorted(claimed(world)) == ["a1", "b1", "b2"]
    assert limited(world) == [("concurrency", None)]
    assert world.status(r.TaskAcquire("a2", 0, "w", 1_000)) == 429
    assert world.status(fulfill("a1", 1)) == 200
    assert claimed(world) == ["a2"]


# -- rates -------------------------------------------------------------------------------------------


def test_no_more_start_in_a_period_than_the_rate() -> None:
    """Periods are aligned to the epoch; a start counts although the work is given back."""
    world = World()
    world.now = 1_000_500
    jobs(world, *"abcde")
    put(world, rate=RateLimit(2, 1_000))
    assert claimed(world) == ["a", "b"]
    assert world.status(r.TaskRelease("a", 1)) == 200
    assert limited(world) == [("rate", 1_001_000)]
    assert world.status(r.TaskAcquire("c", 0, "w", 1_000)) == 429
    world.now = 1_001_000
    assert len(claimed(world)) == 2
    assert limited(world) == [("rate", 1_002_000)]


def test_a_lane_has_a_rate_of_its_own() -> None:
    """Each lane starts as many as the rate allows in a period."""
    world = World()
    jobs(world, "a1", "a2", "a3", lane="a")
    jobs(world, "b1", "b2", lane="b")
    put(world, lane=LaneLimits(rate=RateLimit(1, 1_000)))
    assert sorted(claimed(world)) == ["a1", "b1"]
    world.pass_time(1_000)
    assert sorted(claimed(world)) == ["a2", "b2"]


# -- depth -------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_new_roots_only() -> None:
    """429 and nothing is stored; what exists is answered, children of running work come in."""
    world = World()
    jobs(world, "a")
    put(world, max_depth=2)
    jobs(world, "b")
    assert world.create("c", queue="q").status == 429
    assert "c" not in world.dump.promises
    assert world.create("a", queue="q").status == 200
    assert world.create("a.1", queue="q", parent="a").status == 200
    assert world.create("d", queue="other").status == 200
    assert claimed(world, limit=2) == ["a", "b"]
    assert world.create("c", queue="q").status == 200
    put(world, max_depth=None)
    assert world.create("e", queue="q").status == 200


def test_the_count_of_what_waits_is_exact() -> None:
    """However tasks come, go, wait and end, in batches too, the stored count is the real one."""
    choice = random.Random(7)
    world = World()
    jobs(world, *(f"old{n}" for n in range(5)))
    put(world, max_depth=1_000)
    world.create("x", external="true")
    held: dict[str, int] = {}
    for number in range(300):
        moves: list[r.Request] = []
        for _ in range(choice.randint(1, 4)):
            moves.append(_move(choice, f"j{number}-{len(moves)}", held))
        for answer in world.batch(moves):
            if isinstance(answer.data, ClaimResult):
                held.update({lease.task.id: lease.task.version for lease in answer.data.tasks})
        world.pass_time(choice.choice((0, 100, 5_000)))
        world.settle_down()
        waiting = sum(t.state == "pending" for t in world.dump.tasks.values())
        entry = world.dump.entries[EntryKey(EntryKind.DEPTH, "q")]
        assert entry.data == Depth(waiting)


def _move(choice: random.Random, new: str, held: dict[str, int]) -> r.Request:
    id = choice.choice([*held, new])
    version = held.pop(id, 1)
    return choice.choice(
        [
            create(new, queue="q"),
            create(new, queue="q", delay=str(1_000_000 + choice.randint(0, 500_000))),
            r.TaskClaim(["q"], "w", 1_000, 2),
            fulfill(id, version),
            suspend(id, version, "x"),
            r.TaskNack(id, version, 500),
            r.TaskRelease(id, version),
            r.TaskHalt(id),
            r.TaskContinue(id),
        ]
    )


# -- turns -------------------------------------------------------------------------------------------


def test_lanes_take_turns() -> None:
    """A lane that floods the queue gets no more than its turn, however early it came."""
    world = World()
    jobs(world, *(f"flood{n}" for n in range(50)), lane="flood")
    jobs(world, "quiet1", "quiet2", lane="quiet")
    jobs(world, "other", lane="other")
    order = []
    for _ in range(6):
        order += claimed(world, limit=1)
    assert sorted(order[:3]) == ["flood0", "other", "quiet1"]
    assert set(order[3:5]) == {"flood1", "quiet2"}
    assert order[5] == "flood2"


def test_turns_go_on_where_they_were_whoever_claims() -> None:
    """One large claim and many small ones, alone or in one commit, serve lanes in the same order."""

    def world_of_lanes() -> World:
        world = World()
        for lane in "abcde":
            jobs(world, *(f"{lane}{n}" for n in range(4)), lane=lane)
        return world

    large = claimed(world_of_lanes(), limit=20)
    small = world_of_lanes()
    assert [id for _ in range(20) for id in claimed(small, limit=1)] == large
    together = world_of_lanes()
    answers = together.batch([r.TaskClaim(["q"], "w", 10_000, 3) for _ in range(7)])
    found = [
        lease.task.id
        for answer in answers
        if isinstance(answer.data, ClaimResult)
        for lease in answer.data.tasks
    ]
    assert found == large
    assert [id[0] for id in large] == list("abcde") * 4


def test_a_lane_that_weighs_more_gets_more_of_each_round() -> None:
    """Weight 3 against 1 and 1: three of five, also when claims cut a turn in two."""
    world = World()
    put(world, lanes={"b": LaneLimits(weight=3)})
    for lane in "abc":
        jobs(world, *(f"{lane}{n}" for n in range(20)), lane=lane)
    taken = [id for _ in range(12) for id in claimed(world, limit=2)]
    assert Counter(id[0] for id in taken[:20]) == {"a": 4, "b": 12, "c": 4}


def test_within_a_lane_the_rank_decides() -> None:
    """Priorities count inside of a lane; among lanes, turns do."""
    world = World()
    jobs(world, "low", lane="a")
    world.create("high", queue="q", lane="a", priority="5")
    jobs(world, "b", lane="b")
    order = [id for _ in range(3) for id in claimed(world, limit=1)]
    assert order in (["high", "b", "low"], ["b", "high", "low"])


def test_many_lanes_are_looked_at_a_few_at_a_time() -> None:
    """A thousand lanes: a claim loads some of them, and in the end each has had its turn."""
    world = World(watched=False)
    lanes = [f"lane{n:04}" for n in range(1_000)]
    for lane in lanes:
        jobs(world, f"{lane}-1", f"{lane}-2", lane=lane)
    world.loads = 0
    first = [id for _ in range(100) for id in claimed(world, limit=10)]
    assert first == [f"{lane}-1" for lane in lanes]
    assert world.loads <= 4 * 100
    assert [id for _ in range(100) for id in claimed(world, limit=10)] == [
        f"{lane}-2" for lane in lanes
    ]
    assert claimed(world) == []


def test_functions_and_lanes_together() -> None:
    """A worker that knows some functions takes turns among the lanes that have them."""
    world = World()
    for lane in "ab":
        for function in ("f@1", "g@1"):
            world.create(f"{lane}-{function}", queue="q", lane=lane, function=function)
    assert sorted(claimed(world, functions=["g@1"])) == ["a-g@1", "b-g@1"]
    assert sorted(claimed(world, functions=["f@1", "h@1"])) == ["a-f@1", "b-f@1"]


def test_jobs_of_this_very_commit_take_their_turns() -> None:
    """Lanes and jobs that a batch brings are seen by the claims behind them in it."""
    world = World()
    jobs(world, "a1", "a2", lane="a")
    jobs(world, "c1", lane="c")
    requests: list[r.Request] = [
        r.TaskClaim(["q"], "w", 1_000, 1),
        create("b1", queue="q", lane="b"),
        r.TaskClaim(["q"], "w", 1_000, 10),
    ]
    answers = world.batch(requests)
    taken = [[t.task.id for t in a.data.tasks] for a in answers if isinstance(a.data, ClaimResult)]
    assert taken == [["a1"], ["b1", "c1", "a2"]]


# -- ageing ------------------------------------------------------------------------------------------


def test_how_much_a_priority_is_worth_is_a_setting() -> None:
    """With a short ageing, waiting soon counts for more than priority."""
    orders = {}
    for aging in (None, 10):
        world = World()
        put(world, aging=aging)
        jobs(world, "old")
        world.pass_time(DEFAULT_AGING_MS // 2)
        world.create("high", queue="q", priority="1")
        orders[aging] = claimed(world)
    assert orders == {None: ["high", "old"], 10: ["old", "high"]}


def test_a_held_job_keeps_its_attempt_through_all_of_this() -> None:
    """Being passed over by a limit is no failure."""
    world = World()
    jobs(world, "a", "b")
    put(world, concurrency=1)
    assert claimed(world) == ["a"]
    for _ in range(5):
        assert claimed(world) == []
    assert world.status(fulfill("a", 1)) == 200
    (lease,) = world.ok(r.TaskClaim(["q"], "w", 1_000), ClaimResult).tasks
    assert isinstance(lease, AcquiredTask)
    assert (lease.task.id, lease.attempt) == ("b", 1)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("passed", [0, 1, 150, 199])
def test_one_claim_takes_from_more_lanes_than_are_looked_at_first(passed: int) -> None:
    """However many lanes a claim passes, and wherever the turn stands, each lane comes once before
    any comes twice."""
    world = World(watched=False)
    names = [f"{n:03}" for n in range(200)]
    for lane in names:
        jobs(world, f"{lane}a", f"{lane}b", lane=lane)
    if passed:
        assert claimed(world, limit=passed) == [f"{lane}a" for lane in names[:passed]]
    rest = [f"{lane}a" for lane in names[passed:]] + [f"{lane}b" for lane in names]
    assert claimed(world, limit=120) == rest[:120]
    assert claimed(world, limit=300) == rest[120:]
