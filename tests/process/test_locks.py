"""Processes that share a lock on one SQLite file: turns, wake-ups, and a holder that is killed."""

from __future__ import annotations

import asyncio
import time

import pytest

import kept
from tests.process.programs import Programs, line_of, tell

PROCESSES = 3
ROUNDS = 15
TTL_SECONDS = 1.0
# A handover takes milliseconds. Without wake-ups each would wait a second for a look.
LONGEST_SECONDS = 20

CONTEND = """
import asyncio, sys
import kept

async def main(rounds):
    async with kept.App("sqlite:///kept.db", worker=False) as app:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(rounds):
            async with app.lock("door") as lease:
                with open("log", "a") as log:
                    print("in", lease.fence, file=log, flush=True)
                    await asyncio.sleep(0.001)
                    print("out", lease.fence, file=log, flush=True)
        print("done", flush=True)

asyncio.run(main(int(sys.argv[1])))
"""

HOLD = f"""
import asyncio
import kept

async def main():
    async with kept.App("sqlite:///kept.db", worker=False) as app:
        async with app.lock("door", ttl={TTL_SECONDS}):
            print("held", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


def test_processes_take_turns(programs: Programs) -> None:
    """Never two inside, fences rise, and each waits for the others' release, not for a poll."""
    processes = [programs.start(CONTEND, str(ROUNDS)) for _ in range(PROCESSES)]
    assert [line_of(process) for process in processes] == ["ready"] * PROCESSES
    began = time.monotonic()
    for process in processes:
        tell(process)
    assert [line_of(process) for process in processes] == ["done"] * PROCESSES
    assert time.monotonic() - began < LONGEST_SECONDS
    log = [line.split() for line in (programs.place / "log").read_text().splitlines()]
    assert [what for what, _ in log] == ["in", "out"] * (PROCESSES * ROUNDS)
    fences = [int(fence) for what, fence in log if what == "in"]
    assert fences == sorted(set(fences))
    assert [fence for _, fence in log[::2]] == [fence for _, fence in log[1::2]]


def test_a_holder_that_is_killed_is_followed(programs: Programs) -> None:
    """Not before its ttl has passed, and soon after."""
    holder = programs.start(HOLD)
    assert line_of(holder) == "held"

    async def follow() -> float:
        url = f"sqlite:///{programs.place / 'kept.db'}"
        async with kept.App(url, worker=False) as app:
            with pytest.raises(kept.LockHeldError):
                await app.lock("door", wait=0).__aenter__()
            holder.kill()
            killed_at = time.monotonic()
            async with asyncio.timeout(LONGEST_SECONDS), app.lock("door"):
                return time.monotonic() - killed_at

    # The latest heartbeat was at most a third of the ttl before the kill.
    assert asyncio.run(follow()) > TTL_SECONDS / 2
