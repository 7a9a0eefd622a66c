"""The same cycle with a million promises stored, and what starting on such a file takes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.cycle import PARAM, RESULT, TAGS, cycle
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState
from kept.protocol.responses import ClaimResult
from kept.runtime import SystemRuntime
from kept.stores.open import open_store

_START = """
import asyncio, json, resource, sys, time
began = time.perf_counter()
from kept.engine.engine import Engine
from kept.runtime import SystemRuntime
from kept.stores.open import open_store
from kept.protocol import requests as r
async def main():
    runtime = SystemRuntime()
    engine = Engine(open_store("sqlite:///" + sys.argv[1], runtime), runtime)
    await engine.start()
    assert (await engine.submit(r.PromiseGet("stored-5"))).ok
    seconds = time.perf_counter() - began
    await engine.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, peak]))
asyncio.run(main())
"""


def fill(path: Path, promises: int) -> None:
    """Stores finished jobs through the machine, as a busy year would have left them."""
    asyncio.run(_filled(path, promises))


async def _filled(path: Path, promises: int) -> None:
    runtime = SystemRuntime()
    engine = Engine(open_store(f"sqlite:///{path}", runtime), runtime)
    await engine.start()
    head = r.RequestHead()
    for first in range(0, promises, 1_000):
        ids = [f"stored-{number}" for number in range(first, min(first + 1_000, promises))]
        creates = [(r.PromiseCreate(id, NEVER_MS, PARAM, TAGS), head) for id in ids]
        await engine.submit_batch(creates)
        claimed = await engine.submit(r.TaskClaim(["bench"], "w", 60_000, 1_000, preload=0))
        assert isinstance(claimed.data, ClaimResult)
        assert len(claimed.data.tasks) == len(ids)
        settles = [r.PromiseSettle(id, PromiseState.RESOLVED, RESULT) for id in ids]
        await engine.submit_batch(
            [(r.TaskFulfill(s.id, 1, r.SettleAction(s)), head) for s in settles]
        )
    await engine.stop()


def cycle_on(path: Path, jobs: int, prefix: str) -> float:
    """Jobs/s of the cycle on a file that holds others."""

    async def measured() -> float:
        runtime = SystemRuntime()
        engine = Engine(open_store(f"sqlite:///{path}", runtime), runtime)
        await engine.start()
        try:
            return await cycle(engine, jobs, prefix)
        finally:
            await engine.stop()

    return asyncio.run(measured())


def start_up(path: Path) -> tuple[float, float]:
    """Seconds from a fresh process to the first answer, and its peak of resident memory in MiB."""
    command = [sys.executable, "-c", _START, str(path)]
    seconds, peak = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return float(seconds), float(peak)
