"""What claims over lanes load and pass, and that they serve the lanes as the rule says (B2)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kept.machine import turns
from kept.protocol import requests as r
from kept.protocol.entries import LaneLimits, RateLimit
from kept.protocol.responses import ClaimResult, QueueResult, Response
from tests.unit.machine.world import World, create, fulfill

CLAIM = r.TaskClaim(["q"], "w", 10_000, 1, preload=0)


def world_of(lanes: int, each: int = 1, **settings: object) -> World:
    """A queue with so many jobs in each of so many lanes."""
    world = World(watched=False)
    if settings:
        world.ok(r.QueuePut("q", **settings), QueueResult)  # type: ignore[arg-type]
    for lane in range(lanes):
        requests: list[r.Request] = [
            create(f"{lane:04}-{n}", queue="q", lane=f"{lane:04}") for n in range(each)
        ]
        world.batch(requests)
    return world


def claimed(world: World, limit: int) -> list[str]:
    return [lease.task.id for lease in world.claim("q", limit=limit, preload=0)]


def taken(answers: list[Response]) -> list[list[str]]:
    """What each claim of a batch got."""
    return [[t.task.id for t in a.data.tasks] for a in answers if isinstance(a.data, ClaimResult)]


def cost_of(world: World, limit: int) -> tuple[int, int, int]:
    """How often a claim loads, how many jobs, and the names of how many lanes."""
    world.loads = world.rows = world.lanes = 0
    assert len(claimed(world, limit)) == limit
    return world.loads, world.rows, world.lanes


# -- what is loaded ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 10, 30])
def test_what_a_claim_loads_does_not_depend_on_the_lanes(limit: int) -> None:
    """A claim of n tasks loads n and one more, from as many lanes, in three loads, whether there
    are forty lanes or four hundred."""
    few, many = world_of(40, 4), world_of(400, 4)
    for _ in range(4):
        assert cost_of(few, limit) == cost_of(many, limit) == (3, limit + 1, limit + 1)


@pytest.mark.parametrize("weight", [2, 7])
def test_a_claim_loads_as_much_of_each_lane_as_it_weighs(weight: int) -> None:
    """Lanes that weigh more are loaded deeper, and fewer of them."""
    world = world_of(30, 8, lane=LaneLimits(weight=weight))
    for _ in range(3):
        loads, rows, _ = cost_of(world, 20)
        assert loads <= 5
        assert rows <= 2 * (20 + 2 * weight)


def test_a_claim_goes_round_few_lanes_in_one_load() -> None:
    """Three lanes give a claim of ninety thirty each."""
    loads, rows, _ = cost_of(world_of(3, 40), 90)
    assert loads == 3
    assert rows <= 90 + 3


def test_a_long_lane_beside_short_ones_costs_a_few_loads() -> None:
    """When the others have nothing left, the long one is loaded deeper by and by."""
    world = world_of(4)
    world.batch([create(f"flood{n}", queue="q", lane="0002") for n in range(300)])
    loads, rows, _ = cost_of(world, 200)
    assert loads <= 6
    assert rows <= 2 * 2 * 200


def test_claims_of_one_batch_share_what_is_loaded() -> None:
    """A hundred claims of one job each load no more than one claim of a hundred."""
    world = world_of(300)
    world.loads = world.rows = 0
    answers = world.batch([CLAIM] * 100)
    assert taken(answers) == [[f"{lane:04}-0"] for lane in range(100)]
    assert (world.loads, world.rows) == (3, 101)


# -- lanes at their limits ---------------------------------------------------------------------------


def shut_world(lanes: int, monkeypatch: pytest.MonkeyPatch) -> tuple[World, Counter[str]]:
    """All lanes but the last hold as many as they may; and how often each was asked for its limits."""
    world = world_of(lanes, 2, lane=LaneLimits(concurrency=1))
    assert len(claimed(world, lanes - 1)) == lanes - 1
    asked: Counter[str] = Counter()
    original = turns.lane_refusal

    def lane_refusal(step: object, queue: str, settings: object, lane: str) -> object:
        asked[lane] += 1
        return original(step, queue, settings, lane)  # type: ignore[arg-type]

    monkeypatch.setattr(turns, "lane_refusal", lane_refusal)
    return world, asked


def test_lanes_at_their_limits_are_passed_once_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty claims find five hundred lanes shut: these are looked at a few times, not by each, and
    no job of theirs is loaded."""
    world, asked = shut_world(500, monkeypatch)
    assert claimed(world, 1) == ["0499-0"]
    asked.clear()
    world.loads = world.rows = 0
    answers = world.batch([CLAIM] * 50)
    assert taken(answers) == [[]] * 50
    assert all(a.data.limited for a in answers if isinstance(a.data, ClaimResult))
    assert max(asked.values()) <= 8
    assert world.loads <= 12
    assert world.rows == 0


def test_a_lane_that_is_freed_in_the_batch_is_found_in_it() -> None:
    """A claim before found it shut, one behind the fulfilment takes from it."""
    world = world_of(20, 2, lane=LaneLimits(concurrency=1))
    assert len(claimed(world, 20)) == 20
    answers = world.batch([CLAIM, CLAIM, fulfill("0007-0", 1), CLAIM, CLAIM])
    assert taken(answers) == [[], [], ["0007-1"], []]


def test_settings_that_change_in_the_batch_hold_in_it() -> None:
    """What was shut by the old ones is looked at again, and the other way round."""
    world = world_of(3, 3, lane=LaneLimits(concurrency=1))
    wider = r.QueuePut("q", lane=LaneLimits(concurrency=2))
    rate = r.QueuePut("q", lane=LaneLimits(rate=RateLimit(1, 1_000)))
    answers = world.batch([CLAIM] * 4 + [wider] + [CLAIM] * 4)
    assert [len(ids) for ids in taken(answers)] == [1, 1, 1, 0, 1, 1, 1, 0]
    answers = world.batch([rate, *[CLAIM] * 4])
    assert [len(ids) for ids in taken(answers)] == [1, 1, 1, 0]


def test_a_period_that_begins_within_a_batch_opens_lanes() -> None:
    """On a clock that a request brings with it (debug), a lane that was shut is looked at again."""
    world = world_of(2, 3, lane=LaneLimits(rate=RateLimit(1, 1_000)))
    world.request_ms = 300
    answers = world.batch([CLAIM] * 8)
    assert sum(map(len, taken(answers))) > 2
    starts = Counter(world.task(id).lane for ids in taken(answers) for id in ids)
    assert starts == {"0000": 3, "0001": 3}


def test_more_lanes_at_their_limits_than_a_claim_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim looks at so many and gives up; the next one goes on behind them."""
    monkeypatch.setattr(turns, "MAX_LANES", 50)
    world, asked = shut_world(400, monkeypatch)
    world.batch([fulfill("0300-0", 1)])
    assert claimed(world, 1) == ["0399-0"]
    found: list[str] = []
    for _ in range(8):
        asked.clear()
        found += claimed(world, 1)
        assert len(asked) <= 4 * 50
    assert found == ["0300-1"]


# -- the rule ----------------------------------------------------------------------------------------


class Rule:
    """Turns and limits as the protocol says them, over lists."""

    def __init__(self, settings: r.QueuePut) -> None:
        self.general = settings.lane if isinstance(settings.lane, LaneLimits) else LaneLimits()
        self.named = settings.lanes if isinstance(settings.lanes, dict) else {}
        self.waiting: dict[str, list[str]] = {}
        self.running: Counter[str] = Counter()
        self.lane, self.taken = "", 0

    def limit(self, lane: str, name: str, default: int) -> int:
        return getattr(self.named.get(lane), name, None) or getattr(self.general, name) or default

    def claim(self) -> str | None:
        stays = self.taken < self.limit(self.lane, "weight", 1)
        lanes = sorted(
            self.waiting,
            key=lambda lane: (lane < self.lane or (lane == self.lane and not stays), lane),
        )
        for lane in lanes:
            if self.waiting[lane] and self.running[lane] < self.limit(lane, "concurrency", 10**9):
                self.taken = self.taken + 1 if lane == self.lane and stays else 1
                self.lane = lane
                self.running[lane] += 1
                return self.waiting[lane].pop(0)
        return None


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_claimed_comes_by_the_rule(seed: int) -> None:
    """Lanes of all lengths, weights and limits, claims of all sizes in batches of all sizes, jobs
    that end in between: the order is that of the plain rule."""
    choice = random.Random(seed)
    names = [f"{n:02}" for n in range(choice.choice([2, 5, 40]))]
    settings = r.QueuePut(
        "q",
        lane=LaneLimits(
            concurrency=choice.choice([None, None, 1, 3]), weight=choice.choice([None, None, 2, 5])
        ),
        lanes={
            lane: LaneLimits(concurrency=choice.choice([None, 2]), weight=choice.choice([None, 3]))
            for lane in choice.sample(names, choice.choice([0, 2]))
        },
    )
    world, rule = World(watched=False), Rule(settings)
    world.ok(settings, QueueResult)
    held: list[str] = []
    number = 0
    for _ in range(30):
        for _ in range(choice.choice([0, 3, 30])):
            number += 1
            lane = choice.choice(names)
            world.create(f"{number:04}", queue="q", lane=lane)
            rule.waiting.setdefault(lane, []).append(f"{number:04}")
        for id in choice.sample(held, min(len(held), choice.choice([0, 2, 20]))):
            rule.running[world.task(id).lane or ""] -= 1
            held.remove(id)
            assert world.status(fulfill(id, 1)) == 200
        limits = [choice.choice([1, 2, 9, 60]) for _ in range(choice.choice([1, 1, 3]))]
        answers = world.batch([r.TaskClaim(["q"], "w", 10_000_000, n, preload=0) for n in limits])
        for limit, ids in zip(limits, taken(answers), strict=True):
            due = [id for _ in range(limit) if (id := rule.claim()) is not None]
            assert ids == due
            held += ids
