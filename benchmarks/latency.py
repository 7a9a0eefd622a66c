"""From enqueue to start: how long a job waits for an idle worker."""

from __future__ import annotations

import asyncio
import statistics
import time

import kept
from benchmarks.folder import fresh_folder
from benchmarks.served import server


def embedded(jobs: int) -> tuple[float, float]:
    """Median and 99th percentile, in ms, with engine and worker in this process."""
    with fresh_folder() as folder:
        return asyncio.run(_measured(f"sqlite:///{folder / 'kept.db'}", jobs))


def over_http(jobs: int) -> tuple[float, float]:
    """The same with a server in another process."""
    with fresh_folder() as folder, server(folder / "kept.db") as url:
        return asyncio.run(_measured(url, jobs))


async def _measured(url: str, jobs: int) -> tuple[float, float]:
    app = kept.App(url)
    started: asyncio.Queue[float] = asyncio.Queue()

    @app.function
    async def job(number: int) -> None:
        started.put_nowait(time.perf_counter())

    waits: list[float] = []
    async with app:
        for number in range(jobs):
            began = time.perf_counter()
            handle = await app.start(job, number)
            waits.append((await started.get() - began) * 1_000)
            await handle
    return statistics.median(waits), statistics.quantiles(waits, n=100)[98]
