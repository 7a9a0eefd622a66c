"""The job cycle in one process: create, claim, fulfil, on SQLite with every commit synced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.folder import fresh_folder
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import ClaimResult
from kept.runtime import SystemRuntime
from kept.stores.open import open_store

IN_FLIGHT = 256
CLAIM = 256
TAGS = {"resonate:target": "queue://bench"}
PARAM = Value(headers={"kept-format": "1"}, data='{"args":["order-42",1999],"kwargs":{}}')
RESULT = Value(headers={"kept-format": "1"}, data='"receipt"')


def job_cycle(jobs: int) -> float:
    """Jobs/s with producers and a worker at work at the same time."""
    with fresh_folder() as folder:
        return asyncio.run(_measured(folder / "kept.db", jobs))


async def _measured(path: Path, jobs: int) -> float:
    runtime = SystemRuntime()
    engine = Engine(open_store(f"sqlite:///{path}", runtime), runtime)
    await engine.start()
    try:
        return await cycle(engine, jobs)
    finally:
        await engine.stop()


async def cycle(
    engine: Engine,
    jobs: int,
    prefix: str = "job",
    tags_of: Callable[[int], dict[str, str]] = lambda _: TAGS,
) -> float:
    """Jobs/s of `jobs` full cycles on a running engine."""
    began = time.perf_counter()
    await asyncio.gather(_produce(engine, jobs, prefix, tags_of), _work(engine, jobs))
    return jobs / (time.perf_counter() - began)


async def _produce(
    engine: Engine, jobs: int, prefix: str, tags_of: Callable[[int], dict[str, str]]
) -> None:
    numbers = iter(range(jobs))

    async def produce() -> None:
        for number in numbers:
            create = r.PromiseCreate(f"{prefix}-{number}", NEVER_MS, PARAM, tags_of(number))
            assert (await engine.submit(create)).ok

    await asyncio.gather(*(produce() for _ in range(IN_FLIGHT)))


async def _work(engine: Engine, jobs: int) -> None:
    left = jobs
    finishing: set[asyncio.Task[None]] = set()
    while left > 0:
        claim = r.TaskClaim(["bench"], "worker", 60_000, min(CLAIM, left), 5_000, preload=0)
        response = await engine.submit(claim)
        assert isinstance(response.data, ClaimResult)
        for acquired in response.data.tasks:
            finishing.add(asyncio.ensure_future(_finish(engine, acquired.task.id)))
        left -= len(response.data.tasks)
        finishing = {task for task in finishing if not task.done()}
    await asyncio.gather(*finishing)


async def _finish(engine: Engine, id: str) -> None:
    settle = r.SettleAction(r.PromiseSettle(id, PromiseState.RESOLVED, RESULT))
    assert (await engine.submit(r.TaskFulfill(id, 1, settle))).ok
