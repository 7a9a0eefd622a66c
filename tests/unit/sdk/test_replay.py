"""Whatever happens to workers, a workflow comes to the same outcome."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.sdk.effects import BODIES, Body, World
from tests.unit.sdk.site import DEADLINE_SECONDS, site

EXPECTED = {
    "linear": ["0", "1", "2", "3"],
    "gathered": ["g0", "g1", "g2", "g3", "g4", "after"],
    "grouped": ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2"],
    "timed_out": ["compensation", "in time"],
    "raced": "raced",
    "raced_calls": "raced",
    "called": ["x-1x-2", "y", "z"],
    "recursive": 3,
    "retried": "flaky",
    "excepted": ["ValueError: broken", "LookupError", "recovered"],
    "napping": ["awake", "again"],
    "cancelled_branch": "end",
    "cancelled_call": "second",
    "left_behind": "awaited",
    "consumer": "done",
    "drawing": 9,
    "detaching": ["between", ".2", ".1", ".4"],
    "undoing": ["ValueError", "undo three", "undo two", "undo one"],
    "batching": ["b0", "b1", "b2", "b3", "last"],
    "undoing_in_vain": ["LookupError", "PromiseRejectedError"],
}
IN_PARALLEL = 48
MAX_REQUESTS = 200

bodies = pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)


async def _outcome(body: Body, *, cache: int) -> tuple[object, World]:
    world = World()
    workflow = world.workflow(body)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(world.app, cache=cache)
        handle = await place.app(world.app).start(workflow)
        return await handle, world


@bodies
@pytest.mark.parametrize("cache", [100, 0], ids=["kept in memory", "replayed each time"])
async def test_outcome(body: Body, cache: int) -> None:
    """Each workflow comes to its result, and nothing in it runs twice, in memory or replayed."""
    result, world = await _outcome(body, cache=cache)
    assert result == EXPECTED[body.__name__]
    repeated = {label for label, count in world.begun.items() if count > 1}
    assert repeated <= {"flaky"}


@bodies
@pytest.mark.parametrize("applied", [False, True], ids=["lost request", "lost answer"])
@pytest.mark.timeout(120)
async def test_crash_at_every_request(body: Body, *, applied: bool) -> None:
    """A worker that falls silent at its n-th request is replaced, for every n, with one outcome.

    Steps whose record was committed never run again. The first worker lives on as a zombie, and
    whatever it then still sends changes nothing.
    """
    limit = 1
    finished = False
    while not finished:
        assert limit < MAX_REQUESTS
        runs = [_crash(body, limit + i, applied=applied) for i in range(IN_PARALLEL)]
        # All of them end before any failure is told, so that nothing is left running.
        crashed = await asyncio.gather(*runs, return_exceptions=True)
        failures = [failure for failure in crashed if isinstance(failure, BaseException)]
        if failures:
            raise failures[0]
        finished = not all(crashed)
        limit += IN_PARALLEL


async def _crash(body: Body, limit: int, *, applied: bool) -> bool:
    """Whether the worker came to its end of life at that request."""
    world = World()
    workflow = world.workflow(body)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        breaking = place.connection(limit, applied=applied)
        place.worker(world.app, breaking, ttl=0.4)
        handle = await place.app(world.app).start(workflow)
        outcome = asyncio.ensure_future(handle.result())
        broken = asyncio.ensure_future(breaking.broken.wait())
        await asyncio.wait([outcome, broken], return_when=asyncio.FIRST_COMPLETED)
        crashed = breaking.broken.is_set()
        broken.cancel()
        recorded = set(breaking.recorded)
        before = world.begun.copy()
        if crashed:
            place.worker(world.app, ttl=5)
        assert await outcome == EXPECTED[body.__name__], f"request {limit}"
        again = {label for label in recorded if world.begun[label] > before[label]}
        assert not again - {"flaky"}, f"request {limit}: recorded steps ran again"
        prizes = [label for label in world.begun if label.startswith("prize")]
        assert len(prizes) <= 1, f"request {limit}: {prizes}"
        breaking.revive()
        assert await handle == EXPECTED[body.__name__]
        return crashed
