"""Locks: how many a second one can have and give back, and how long a crowd waits for one."""

from __future__ import annotations

import asyncio
import statistics
import time

import kept
from benchmarks.folder import fresh_folder
from benchmarks.served import server

CONTENDERS = 16
HELD_SECONDS = 0.001


def uncontended(rounds: int) -> float:
    """Acquire and release a second, one after another, with the engine in this process."""
    with fresh_folder() as folder:
        return asyncio.run(_uncontended(f"sqlite:///{folder / 'kept.db'}", rounds, tasks=1))


def many_locks(rounds: int) -> float:
    """The same with 64 tasks, each with a lock of its own."""
    with fresh_folder() as folder:
        return asyncio.run(_uncontended(f"sqlite:///{folder / 'kept.db'}", rounds, tasks=64))


async def _uncontended(url: str, rounds: int, tasks: int) -> float:
    async def again_and_again(app: kept.App, name: str) -> None:
        for _ in range(rounds // tasks):
            async with app.lock(name):
                pass

    async with kept.App(url, worker=False) as app:
        began = time.perf_counter()
        await asyncio.gather(*(again_and_again(app, f"lock-{n}") for n in range(tasks)))
        return rounds // tasks * tasks / (time.perf_counter() - began)


def embedded(rounds: int) -> tuple[float, float]:
    """Median and 95th percentile, in ms, of the wait of a crowd with the engine in this process."""
    with fresh_folder() as folder:
        return asyncio.run(_contended(f"sqlite:///{folder / 'kept.db'}", rounds))


def over_http(rounds: int) -> tuple[float, float]:
    """The same with a server in another process."""
    with fresh_folder() as folder, server(folder / "kept.db") as url:
        return asyncio.run(_contended(url, rounds))


async def _contended(url: str, rounds: int) -> tuple[float, float]:
    waits: list[float] = []
    fences: list[int] = []

    async def contend(app: kept.App) -> None:
        for _ in range(max(1, rounds // CONTENDERS)):
            began = time.perf_counter()
            async with app.lock("one for all") as lease:
                waits.append((time.perf_counter() - began) * 1_000)
                fences.append(lease.fence)
                await asyncio.sleep(HELD_SECONDS)

    async with kept.App(url, worker=False) as app:
        await asyncio.gather(*(contend(app) for _ in range(CONTENDERS)))
    assert fences == sorted(set(fences))
    return statistics.median(waits), statistics.quantiles(waits, n=20)[18]
