"""One commit of many requests answers and stores what many commits of one request would."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kept.machine import background as b
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import Response
from tests.unit.machine.world import LISTENER, PUSHED, World, create, fulfill, record, suspend

IDS = [f"p{n}" for n in range(8)]
CHILDREN = [f"c{n}" for n in range(6)]
TAGS = (
    {"queue": "q"},
    {"queue": "q", "attempts": "2", "backoff": "fixed:0"},
    {"queue": "q", "attempts": "1", "exhausted": "halt"},
    {"queue": "q", "priority": "5"},
    {"queue": "r", "function": "f@1"},
    {"target": PUSHED},
    {"target": PUSHED, "timer": "true"},
    {"external": "true"},
    {},
)
# Each must have succeeded often enough for this to be a test of anything.
LEASED = (
    "task.claim",
    "task.fence",
    "task.fulfill",
    "task.nack",
    "task.record",
    "task.release",
    "task.suspend",
)


class Asker:
    """Random requests, most of them for what a world has just then."""

    def __init__(self, seed: int, world: World) -> None:
        self.random = random.Random(seed)
        self.world = world
        self.asked: list[tuple[r.Request, str | None]] = []

    def next(self) -> tuple[r.Request, str | None]:
        """A request and its id; sometimes one that was asked before."""
        if self.asked and self.random.random() < 0.1:
            return self.random.choice(self.asked[-10:])
        each = self._request(), self.random.choice((None, f"u{len(self.asked)}"))
        self.asked.append(each)
        return each

    def _request(self) -> r.Request:
        rng = self.random
        make = rng.choice((self._leased, self._leased, self._claim, self._promise, self._other))
        return make(rng, rng.choice(IDS), rng.choice(IDS + CHILDREN))

    def _leased(self, rng: random.Random, id: str, other: str) -> r.Request:
        dump = self.world.dump
        tasks = dump.tasks
        held = [task.id for task in tasks.values() if task.state is TaskState.ACQUIRED]
        id = rng.choice(held) if held else id
        version = tasks[id].version if id in tasks else 1
        # Only what exists can have reached the code.
        existing = [each for each in CHILDREN if each in dump.promises]
        released = rng.sample(existing, min(len(existing), rng.choice((0, 1, 2))))
        awaited = {other, rng.choice(CHILDREN)} - {id}
        child = rng.choice(CHILDREN)
        kinds: list[r.Request] = [
            r.TaskRelease(id, version),
            fulfill(id, version, released=released),
            suspend(id, version, *sorted(awaited), released=released),
            suspend(id, version, child, released=released),
            record(id, version, child, released=released),
            r.TaskNack(id, version, delay=rng.choice((None, 0, 50))),
            r.TaskFence(
                id,
                version,
                r.CreateAction(create(child, external="true", parent=id)),
                released=released,
            ),
            r.TaskFence(id, version, r.SettleAction(r.PromiseSettle(child, PromiseState.REJECTED))),
        ]
        return rng.choice(kinds)

    def _claim(self, rng: random.Random, id: str, other: str) -> r.Request:
        ttl, limit = rng.choice((10, 1_000)), rng.choice((1, 2, 5))
        kinds: list[r.Request] = [
            r.TaskClaim(["q", "r"], "w", ttl, limit),
            r.TaskClaim(["q"], "w", ttl, limit, preload=rng.choice((0, 1, 2))),
            r.TaskClaim(["r"], "v", ttl, limit, functions=["f@1"]),
            r.TaskAcquire(id, rng.choice((0, 1)), "w", ttl),
            r.TaskCreate("w", ttl, r.CreateAction(create(id, **rng.choice(TAGS[:6])))),
        ]
        return rng.choice(kinds)

    def _promise(self, rng: random.Random, id: str, other: str) -> r.Request:
        now = self.world.now
        deadline = rng.choice((now - 5, now, now + 50, now + 10_000, NEVER_MS, NEVER_MS))
        tags = rng.choice(TAGS)
        kinds: list[r.Request] = [
            create(id, timeout_at=deadline, **tags),
            create(id, timeout_at=NEVER_MS, **tags),
            create(rng.choice(CHILDREN), external="true", parent=id),
            r.PromiseSettle(other, PromiseState.RESOLVED),
            r.PromiseGet(other),
        ]
        return rng.choice(kinds)

    def _other(self, rng: random.Random, id: str, other: str) -> r.Request:
        kinds: list[r.Request] = [
            r.PromiseRegisterCallback(other, id) if other != id else r.PromiseGet(id),
            r.PromiseRegisterListener(other, LISTENER),
            r.TaskHalt(id),
            r.TaskContinue(id),
            r.TaskHeartbeat("w", [r.TaskRef(each, 1) for each in IDS[:3]], report=True),
            r.DeadReplay([id]),
            r.TaskGet(id),
        ]
        return rng.choice(kinds)


def _compare(seed: int, seen: Counter[str]) -> None:
    together, apart = World(), World()
    # Of two tasks with the same rank either may come first.
    together.request_ms = apart.request_ms = 1
    asker = Asker(seed, apart)
    for _ in range(30):
        asked: list[tuple[r.Request, str | None]] = []
        expected: list[Response] = []
        for _ in range(asker.random.choice((1, 2, 5, 25))):
            asked.append(asker.next())
            expected.append(apart.ask(asked[-1][0], request_id=asked[-1][1]))
        answers = together.batch(
            [each for each, _ in asked], request_ids=[each for _, each in asked]
        )
        for (request, id), ours, theirs in zip(asked, answers, expected, strict=True):
            assert ours == theirs, (request, id)
            seen[request.kind] += ours.ok
        assert together.dump == apart.dump
        for id in IDS:
            for world in (together, apart):
                world.pass_time(len(asked))
                world.fire(b.TimeoutPromise(id), b.ExpireLease(id), b.ReadyTask(id))


@pytest.mark.parametrize("seeds", [range(10), range(10, 20)])
def test_a_batch_is_its_requests_one_after_another(seeds: range) -> None:
    """The same requests, in one commit or in one each, get the same answers and leave the same
    records, whatever the batch had loaded before one of its own requests changed it."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        _compare(seed, seen)
    assert all(seen[kind] >= 10 for kind in LEASED), seen
