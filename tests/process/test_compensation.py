"""Canceled work cleans up, though its workers are killed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import kept
from tests.process.programs import Programs
from tests.unit.engine.rig import eventually

WORKER = """
import asyncio, os, sys
import kept

app = kept.App(sys.argv[1], ttl=0.5, queue="flows")
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.function
async def book(thing: str) -> str:
    os.write(log, f"book {thing}\\n".encode())
    return thing


@app.function
async def release(thing: str) -> str:
    os.write(log, f"release {thing}\\n".encode())
    if sys.argv[3] == thing:
        os._exit(9)  # killed in the middle of it
    return thing


@app.function
async def trip(ctx: kept.Context) -> None:
    booked = []
    try:
        for thing in ("flight", "hotel", "car"):
            booked.append(await ctx.run(book, thing))
        await ctx.promise("departure")
    except asyncio.CancelledError:
        for thing in reversed(booked):
            await ctx.run(release, thing)
        raise


async def main():
    async with app:
        print("works", flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
"""


async def test_a_compensation_goes_on_where_it_was_killed(
    programs: Programs, tmp_path: Path
) -> None:
    """Whatever was recorded is not done again, what was not is; the last one first."""
    store, log = f"sqlite:///{tmp_path}/kept.db", tmp_path / "log"
    app = kept.App(store, worker=False)
    async with app:
        running = programs.start(WORKER, store, str(log), "car")
        handle = await app.enqueue("trip", queue="flows", id="trip")
        log.touch()
        await eventually(lambda: "book car" in log.read_text(encoding="utf-8"), within=20)
        assert await handle.cancel("no money")
        for killed_at in ("flight", "nowhere"):
            assert await asyncio.to_thread(running.wait, 20) == 9
            running = programs.start(WORKER, store, str(log), killed_at)
        with pytest.raises(kept.PromiseCanceledError, match="no money"):
            await handle.result(timeout=50)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines == [
        *("book flight", "book hotel", "book car"),
        *("release car", "release car", "release hotel", "release flight", "release flight"),
    ]
