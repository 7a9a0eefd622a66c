"""Claims that wait at a limit start as soon as it lets them, without polling (protocol B2)."""

from __future__ import annotations

import asyncio

from kept.protocol import requests as r
from kept.protocol.entries import RateLimit
from kept.protocol.responses import OK, PromiseResult, QueuePage, QueueResult, QueueStatsResult
from tests.unit.engine.rig import WatchedStore, claimed, ok, running, started, turns, waiting_claim
from tests.unit.machine.world import create, fulfill


async def test_a_slot_that_is_given_back_wakes_a_waiting_claim() -> None:
    """A fulfilment at the limit is what the next claim waits for."""
    async with running(WatchedStore(), repair_ms=60_000) as engine, asyncio.timeout(5):
        await ok(engine, r.QueuePut("q", concurrency=1), QueueResult)
        for id in ("a", "b"):
            await engine.submit(create(id, queue="q"))
        assert claimed(await engine.submit(waiting_claim("q", wait=0))) == ["a"]
        waiting = started(engine, waiting_claim("q"))
        await turns()
        assert not waiting.done()
        await ok(engine, fulfill("a", 1), PromiseResult)
        assert claimed(await waiting) == ["b"]


async def test_a_resumed_queue_wakes_a_waiting_claim() -> None:
    """So does any change of the settings."""
    async with running(WatchedStore(), repair_ms=60_000) as engine, asyncio.timeout(5):
        await ok(engine, r.QueuePause("q"), QueueResult)
        await engine.submit(create("a", queue="q"))
        waiting = started(engine, waiting_claim("q"))
        await turns()
        assert not waiting.done()
        await ok(engine, r.QueueResume("q"), QueueResult)
        assert claimed(await waiting) == ["a"]


async def test_the_next_period_wakes_a_waiting_claim() -> None:
    """A rate lets the claim go on when its next period begins."""
    async with running(WatchedStore(), repair_ms=60_000) as engine, asyncio.timeout(5):
        await ok(engine, r.QueuePut("q", rate=RateLimit(1, 100)), QueueResult)
        for id in ("a", "b", "c"):
            await engine.submit(create(id, queue="q"))
        taken = []
        while len(taken) < 3:
            taken += claimed(await engine.submit(waiting_claim("q", wait=10_000)))
        assert taken == ["a", "b", "c"]


async def test_lists_and_numbers() -> None:
    """Queues that have settings are listed by name; any queue has numbers."""
    async with running(WatchedStore(), repair_ms=60_000) as engine, asyncio.timeout(5):
        for name in ("b", "a"):
            await ok(engine, r.QueuePut(name, concurrency=2), QueueResult)
        await engine.submit(create("j", queue="b"))
        page = (await engine.submit(r.QueueList(limit=1))).data
        assert isinstance(page, QueuePage)
        assert ([queue.name for queue in page.queues], page.cursor) == (["a"], "a")
        response = await engine.submit(r.QueueStats("b"))
        assert response.status == OK
        assert isinstance(response.data, QueueStatsResult)
        stats = response.data.stats
        assert (stats.depth, stats.due, stats.delayed, stats.acquired) == (1, 1, 0, 0)
