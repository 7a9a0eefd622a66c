"""A claim whose caller left takes nothing, at whatever moment the caller left (protocol B2)."""

from __future__ import annotations

import asyncio

from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.records import TaskState
from kept.protocol.responses import ClaimResult
from tests.unit.engine.rig import (
    WatchedStore,
    claimed,
    eventually,
    ok,
    running,
    started,
    turns,
    waiting_claim,
)
from tests.unit.machine.world import create

JOBS = ["a", "b", "c"]


async def _jobs(engine: Engine) -> None:
    for id in JOBS:
        await engine.submit(create(id, queue="q"))


async def test_what_a_claim_got_after_its_caller_left_is_released_at_once() -> None:
    """Given up during its commit, a claim hands back every task, and the next claim gets them."""
    store = WatchedStore()
    async with running(store) as engine:
        await _jobs(engine)
        store.gate.clear()
        gone = started(engine, waiting_claim("q", limit=10, pid="gone"))
        await turns()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        store.gate.set()
        await eventually(lambda: all(store.task(id).version == 1 for id in JOBS))
        await eventually(lambda: all(store.task(id).state is TaskState.PENDING for id in JOBS))
        leases = await ok(engine, waiting_claim("q", limit=10, pid="here"), ClaimResult)
        assert [(lease.task.id, lease.attempt) for lease in leases.tasks] == [
            (id, 1) for id in JOBS
        ]


async def test_a_waiting_caller_gets_what_was_handed_back() -> None:
    """The hand-back wakes a claim that already waits."""
    store = WatchedStore()
    async with running(store) as engine:
        await engine.submit(create("a", queue="q"))
        store.gate.clear()
        gone = started(engine, waiting_claim("q", pid="gone"))
        await turns()
        here = started(engine, waiting_claim("q", pid="here"))
        await turns()
        gone.cancel()
        await turns()
        store.gate.set()
        async with asyncio.timeout(5):
            assert claimed(await here) == ["a"]


async def test_a_claim_that_was_given_up_before_its_commit_is_not_applied() -> None:
    """Still in the queue behind another commit, it is dropped: no version is used up."""
    store = WatchedStore()
    async with running(store) as engine:
        await _jobs(engine)
        store.gate.clear()
        first = started(engine, create("other"))
        await turns()
        gone = started(engine, waiting_claim("q", limit=10, pid="gone"))
        await turns()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        store.gate.set()
        await first
        await engine.submit(r.TaskGet("a"))
        assert {store.task(id).version for id in JOBS} == {0}


async def test_a_repeated_claim_is_not_answered_with_leases_that_are_taken_away() -> None:
    """A client that lost its connection during the commit asks again under the same request id, and
    may keep what it is then told."""
    store = WatchedStore()
    async with running(store) as engine:
        await engine.submit(create("a", queue="q"))
        store.gate.clear()
        head = r.RequestHead(request_id="claim-1")
        claim = waiting_claim("q", pid="w")
        lost = asyncio.ensure_future(engine.submit(claim, head))
        await turns()
        again = asyncio.ensure_future(engine.submit(claim, head))
        await turns()
        lost.cancel()
        await turns()
        store.gate.set()
        response = await again
        assert claimed(response) == ["a"]
        assert isinstance(response.data, ClaimResult)
        lease = response.data.tasks[0].task
        await turns()
        assert store.task("a").state is TaskState.ACQUIRED
        assert store.task("a").version == lease.version
