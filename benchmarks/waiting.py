"""What waits must not be in the way: a deep queue, many lanes, a quiet lane beside a flood."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import kept
from benchmarks.cycle import PARAM, TAGS, cycle
from benchmarks.folder import fresh_folder
from kept.client.connect import connect
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.entries import LaneLimits
from kept.protocol.limits import NEVER_MS
from kept.protocol.responses import ClaimResult
from kept.runtime import SystemRuntime
from kept.sdk import payload
from kept.stores.open import open_store

BATCH = 1_000
# Nothing that is delayed becomes due while anybody measures.
DELAY_MS = 86_400_000
FLOODED = "flood"
QUIET = "quiet"
QUIET_PAUSE_SECONDS = 0.02
WORK_SECONDS = 0.001
CLAIMS = 20


def fill(path: Path, waiting: int, delayed: int = 0, lanes: int = 1) -> None:
    """Jobs that nobody takes yet, through the machine: `waiting` are due, over so many lanes."""
    later = str(SystemRuntime().now_ms() + DELAY_MS)

    async def filled() -> None:
        runtime = SystemRuntime()
        engine = Engine(open_store(f"sqlite:///{path}", runtime), runtime)
        await engine.start()
        head = r.RequestHead()
        for first in range(0, waiting + delayed, BATCH):
            numbers = range(first, min(first + BATCH, waiting + delayed))
            creates = [
                r.PromiseCreate(
                    f"waits-{number}",
                    NEVER_MS,
                    PARAM,
                    {**in_lane(number, lanes), **({tag.DELAY: later} if number >= waiting else {})},
                )
                for number in numbers
            ]
            answers = await engine.submit_batch([(create, head) for create in creates])
            assert all(answer.ok for answer in answers)
        await engine.stop()

    asyncio.run(filled())


def in_lane(number: int, lanes: int) -> dict[str, str]:
    """The tags of a job, in one of so many lanes."""
    return TAGS if lanes == 1 else {**TAGS, tag.LANE: f"lane-{number * 7919 % lanes}"}


def cycle_on(path: Path, jobs: int, prefix: str, lanes: int = 1) -> float:
    """Jobs/s of the cycle on that file: for each that is created, one that waits is taken."""

    async def measured() -> float:
        runtime = SystemRuntime()
        engine = Engine(open_store(f"sqlite:///{path}", runtime), runtime)
        await engine.start()
        try:
            return await cycle(engine, jobs, prefix, lambda number: in_lane(number, lanes))
        finally:
            await engine.stop()

    return asyncio.run(measured())


def claim_of_one(lanes: int, *, shut: bool = False) -> float:
    """The median in ms of a claim of one job, committed by itself, in a queue with so many lanes;
    `shut`: all of them are at their limits, so that it looks at each and gets nothing."""
    with fresh_folder() as folder:
        path = folder / "kept.db"
        fill(path, max(2 * lanes, BATCH), lanes=lanes)
        return asyncio.run(_claim_of_one(path, shut=shut))


async def _claim_of_one(path: Path, *, shut: bool) -> float:
    runtime = SystemRuntime()
    engine = Engine(open_store(f"sqlite:///{path}", runtime), runtime)
    await engine.start()

    async def claim(limit: int) -> int:
        request = r.TaskClaim(["bench"], "worker", 3_600_000, limit, preload=0)
        response = await engine.submit(request)
        assert isinstance(response.data, ClaimResult)
        return len(response.data.tasks)

    try:
        if shut:
            assert (await engine.submit(r.QueuePut("bench", lane=LaneLimits(concurrency=1)))).ok
            while await claim(BATCH):
                pass
        times = []
        for _ in range(CLAIMS):
            began = time.perf_counter()
            assert await claim(1) == (not shut)
            times.append((time.perf_counter() - began) * 1_000)
    finally:
        await engine.stop()
    return statistics.median(times)


def quiet_lane(flood: int, jobs: int) -> tuple[float, float]:
    """Median and 99th percentile, in ms, from the create to the start of a lane's only job, while
    `flood` jobs of another lane wait in the same queue."""
    with fresh_folder() as folder:
        return asyncio.run(_quiet(f"sqlite:///{folder / 'kept.db'}", flood, jobs))


async def _quiet(url: str, flood: int, jobs: int) -> tuple[float, float]:
    app = kept.App(url, concurrency=16)
    waits: list[float] = []

    @app.function
    async def job(began: float) -> None:
        if began:
            waits.append((time.perf_counter() - began) * 1_000)
        await asyncio.sleep(WORK_SECONDS)

    connection = await connect(url, SystemRuntime())

    async def create(id: str, lane: str, began: float) -> None:
        tags = {tag.TARGET: f"queue://{app.queue}", tag.FUNCTION: job.reference, tag.LANE: lane}
        param = payload.encode_arguments((began,), {})
        assert (await connection.send(r.PromiseCreate(id, NEVER_MS, param, tags))).ok

    try:
        for first in range(0, flood, BATCH):
            numbers = range(first, min(first + BATCH, flood))
            await asyncio.gather(*(create(f"flood-{number}", FLOODED, 0.0) for number in numbers))
        async with app:
            for number in range(jobs):
                await create(f"quiet-{number}", QUIET, time.perf_counter())
                await asyncio.sleep(QUIET_PAUSE_SECONDS)
            while len(waits) < jobs:  # noqa: ASYNC110 - the worker tells nobody
                await asyncio.sleep(QUIET_PAUSE_SECONDS)
    finally:
        await connection.close()
    return statistics.median(waits), statistics.quantiles(waits, n=100)[98]
