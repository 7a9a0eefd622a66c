"""What a worker gets done, with everything that a program uses: jobs drained, workflows finished."""

from __future__ import annotations

import asyncio
import time

import kept
from benchmarks.folder import fresh_folder

IN_FLIGHT = 64


def drain(jobs: int) -> float:
    """Jobs/s of one worker on a queue that was filled before."""
    with fresh_folder() as folder:
        return asyncio.run(_drained(f"sqlite:///{folder / 'kept.db'}", jobs))


async def _drained(url: str, jobs: int) -> float:
    left = jobs
    done = asyncio.Event()

    def job_of(app: kept.App) -> kept.Function:  # type: ignore[type-arg]
        @app.function
        async def job(number: int) -> int:
            nonlocal left
            left -= 1
            if not left:
                done.set()
            return number

        return job

    producer = kept.App(url, worker=False)
    job = job_of(producer)
    async with producer:
        handles = await producer.start_many(job, [(number,) for number in range(jobs)])
    worker = kept.App(url, concurrency=1_000)
    job_of(worker)
    began = time.perf_counter()
    async with worker:
        await done.wait()
        # The last ones are done when their results are stored.
        await asyncio.gather(*(worker.handle(handle.id).result() for handle in handles[-1_000:]))
        return jobs / (time.perf_counter() - began)


def workflows(runs: int) -> float:
    """Durable workflows of one step each, per second, with 64 in flight in one process."""
    with fresh_folder() as folder:
        return asyncio.run(_workflows(f"sqlite:///{folder / 'kept.db'}", runs))


async def _workflows(url: str, runs: int) -> float:
    app = kept.App(url)

    @app.function
    async def step(number: int) -> int:
        return number + 1

    @app.function
    async def flow(ctx: kept.Context, number: int) -> int:
        return await ctx.run(step, number)

    async with app:
        numbers = iter(range(runs))

        async def client() -> None:
            for number in numbers:
                assert await app.run(flow, number) == number + 1

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
        return runs / (time.perf_counter() - began)
