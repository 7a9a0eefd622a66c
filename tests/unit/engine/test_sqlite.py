"""The engine over SQLite: what memory shows in passing, a file must keep (design section 2)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kept.protocol import requests as r
from kept.protocol.limits import MAX_EDGES_PER_STEP
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import AcquiredTask, PromiseResult, TaskPage
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore
from tests.unit.engine.rig import claimed, ok, running, started, turns, waiting_claim
from tests.unit.machine.world import create, suspend

# Seconds that a wake-up across processes may take on a busy machine; a repair scan comes later.
WAKE_UP_S = 0.9


def _store(path: Path) -> SqliteStore:
    return SqliteStore(str(path / "kept.db"), SystemRuntime())


async def test_records_survive_a_restart(tmp_path: Path) -> None:
    """Promises, leases with their versions, edges and delays are what they were; deadlines that
    passed meanwhile are settled, and what waited for them is woken."""
    async with running(_store(tmp_path)) as engine:
        deadline = engine.runtime.now_ms() + 800
        await engine.submit(create("awaited", external="true", timeout_at=deadline))
        action = r.CreateAction(create("t", queue="q"))
        await ok(engine, r.TaskCreate("w", 60_000, action), AcquiredTask)
        assert (await engine.submit(suspend("t", 1, "awaited"))).status == 200
        await ok(
            engine, r.TaskCreate("w", 60_000, r.CreateAction(create("u", queue="q"))), AcquiredTask
        )
    async with running(_store(tmp_path), watched=False, repair_ms=60_000) as engine:
        async with asyncio.timeout(5):
            response = await engine.submit(waiting_claim("q"))
        assert claimed(response) == ["t"]
        assert (await engine.submit(r.TaskRelease("u", 1))).status == 200
        settled = await ok(engine, r.PromiseGet("awaited"), PromiseResult)
        assert settled.promise.settled_at == deadline


@pytest.mark.timeout(30)
async def test_a_producer_wakes_a_worker_in_another_engine(tmp_path: Path) -> None:
    """Two engines on one file: a job created by one answers a claim that waits in the other, and a
    settlement answers a wait, long before any scan."""
    async with (
        running(_store(tmp_path), watched=False, repair_ms=60_000) as worker,
        running(_store(tmp_path), watched=False, repair_ms=60_000) as producer,
    ):
        for number in range(5):
            claim = started(worker, waiting_claim("q"))
            await turns()
            await producer.submit(create(f"j{number}", queue="q"))
            async with asyncio.timeout(WAKE_UP_S):
                assert claimed(await claim) == [f"j{number}"]
            wait = started(producer, r.PromiseWait(f"j{number}", 30_000))
            await turns()
            await worker.submit(r.PromiseSettle(f"j{number}", PromiseState.RESOLVED))
            async with asyncio.timeout(WAKE_UP_S):
                await wait


async def test_two_engines_never_give_one_job_twice(tmp_path: Path) -> None:
    """Claims through both at once take each job exactly once."""
    async with (
        running(_store(tmp_path), watched=False) as first,
        running(_store(tmp_path), watched=False) as second,
    ):
        jobs = [(create(f"j{n:03}", queue="q"), r.RequestHead()) for n in range(200)]
        await first.submit_batch(jobs)
        claims = [
            engine.submit(waiting_claim("q", wait=0, limit=3))
            for _ in range(40)
            for engine in (first, second)
        ]
        taken = [id for response in await asyncio.gather(*claims) for id in claimed(response)]
        assert sorted(taken) == [f"j{n:03}" for n in range(200)]


async def test_a_fan_in_drains_across_a_restart(tmp_path: Path) -> None:
    """Three thousand awaiters, an engine that stands still after the settlement, another one that
    finds in the file what is left to do."""
    count = 3 * MAX_EDGES_PER_STEP
    async with running(_store(tmp_path), watched=False, debug=True) as engine:
        await engine.submit(create("awaited", external="true"))
        for start in range(0, count, 500):
            batch: list[r.Request] = []
            for number in range(start, start + 500):
                id = f"t{number:05}"
                batch.append(r.TaskCreate("w", 60_000, r.CreateAction(create(id, queue="q"))))
                batch.append(suspend(id, 1, "awaited"))
            answers = await engine.submit_batch([(each, r.RequestHead()) for each in batch])
            assert {answer.status for answer in answers} == {200}
        await engine.submit(r.DebugStart())
        await engine.submit(r.PromiseSettle("awaited", PromiseState.RESOLVED))
        suspended = r.TaskSearch(state=TaskState.SUSPENDED, limit=1)
        assert (await ok(engine, suspended, TaskPage)).tasks
    async with running(_store(tmp_path), watched=False, repair_ms=60_000) as engine:
        async with asyncio.timeout(20):
            while (await ok(engine, suspended, TaskPage)).tasks:
                await turns()
        lease = (await engine.submit(waiting_claim("q", wait=0, limit=1_000))).data
        assert len(lease.tasks) == 1_000  # type: ignore[union-attr]
