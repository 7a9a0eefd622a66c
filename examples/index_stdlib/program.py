"""The durable program: fan out by package, a durable step for each file, fan in to one report.

It reads like plain asyncio. What kept adds: whichever process dies, at whichever moment, every step
that was recorded stays done, and the rest goes on elsewhere.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from counting import Counts, count_file, total

import kept

# A worker's lease ends this many seconds after it died; then another worker goes on.
LEASE_SECONDS = 1.5

app = kept.App(os.environ.get("INDEX_STORE"), ttl=LEASE_SECONDS, concurrency=4)


@app.function
def count(name: str) -> Counts:
    """One file. A step: it runs in a thread, and its result is recorded once."""
    note("begin", name)
    counts = count_file(name)
    note("end", name)
    return counts


@app.function
async def index_package(ctx: kept.Context, names: list[str]) -> Counts:
    """One package: all its files, a few at a time."""
    room = asyncio.Semaphore(8)

    async def one(name: str) -> Counts:
        async with room:
            return await ctx.run(count, name)

    return total(await asyncio.gather(*(one(name) for name in names)))


@app.function
async def index_library(ctx: kept.Context, packages: dict[str, list[str]]) -> dict[str, Counts]:
    """The library: every package at once, on whichever worker is free."""
    counted = await asyncio.gather(*(ctx.call(index_package, names) for names in packages.values()))
    return dict(zip(packages, counted, strict=True))


def note(event: str, name: str) -> None:
    """Tells the audience, outside of anything durable: one line appended to a log."""
    log = os.environ.get("INDEX_LOG")
    if log is not None:
        line = f"{event} {os.getpid()} {name}\n".encode()
        descriptor = os.open(Path(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
