"""What dies with a simulated process, and what does not."""

from __future__ import annotations

import asyncio
import gc
from random import Random

import pytest

from kept.sim.loop import SimulatedLoop
from kept.sim.process import Process


async def _fails() -> None:
    raise OSError("the disk is gone")


async def _ended(task: asyncio.Task[None]) -> None:
    while not task.done():  # noqa: ASYNC110 - without a look at the result
        await asyncio.sleep(0)


@pytest.mark.parametrize("stops", [False, True])
def test_a_failure_that_nobody_looked_at(stops: bool) -> None:  # noqa: FBT001
    """Where a process is killed nobody could look at it any more; where it was told to stop, its end
    must have been waited for."""
    loop = SimulatedLoop(Random(1), Process("kernel"))
    process = Process("server-1")
    loop.add_process(process)
    task = process.spawn(loop, _fails(), "work")
    loop.run_until_complete(_ended(task))
    if stops:
        process.told_to_stop.set()
    process.kill()
    del task
    gc.collect()
    loop.close()
    assert len(loop.errors) == stops
