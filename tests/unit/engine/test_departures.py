"""A claim whose client is gone takes no work with it (protocol B2)."""

from __future__ import annotations

import asyncio

import pytest

from kept.protocol import requests as r
from kept.protocol.records import TaskState
from tests.unit.engine.rig import (
    WatchedStore,
    claimed,
    eventually,
    running,
    started,
    turns,
    waiting_claim,
)
from tests.unit.machine.world import create


@pytest.mark.parametrize("turns_before", range(8))
async def test_a_claim_that_is_given_up_leaves_its_job(turns_before: int) -> None:
    """At whatever moment the client goes, before, during or right after the commit of its claim, the
    job is there for the next one, without a failure, and not after the ttl only."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine, asyncio.timeout(5):
        await engine.submit(create("j", queue="q", attempts="1"))
        claim = started(engine, waiting_claim("q", ttl=3_600_000))
        await turns(turns_before)
        if claim.cancel():
            await asyncio.wait({claim})
            assert claimed(await engine.submit(waiting_claim("q", wait=2_000))) == ["j"]
            assert store.task("j").failures == 0
        else:
            assert claimed(claim.result()) == ["j"]


async def test_a_claim_that_is_given_up_during_its_commit_is_handed_back() -> None:
    """The commit goes through, then the lease is released in the next one."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine, asyncio.timeout(5):
        await engine.submit(create("j", queue="q"))
        store.gate.clear()
        claim = started(engine, waiting_claim("q", ttl=3_600_000))
        await turns()
        claim.cancel()
        await asyncio.wait({claim})
        store.gate.set()
        await eventually(lambda: store.task("j").version == 1)
        await eventually(lambda: store.task("j").state is TaskState.PENDING)


async def test_a_wait_that_is_given_up_is_forgotten() -> None:
    """Nobody is left registered for it."""
    store = WatchedStore()
    async with running(store) as engine:
        await engine.submit(create("p"))
        wait = started(engine, r.PromiseWait("p", 60_000))
        await turns()
        wait.cancel()
        await asyncio.wait({wait})
        assert engine.statistics.waiting == 0
