"""Processes that ask for the same effect on one SQLite file, and runners that are killed in it."""

from __future__ import annotations

import asyncio
import time

import kept
from tests.process.programs import Programs, line_of, tell

PROCESSES = 3
KEYS = 10
TTL_SECONDS = 1.0
LONGEST_SECONDS = 20

CHARGE = """
import asyncio, os, sys
import kept

async def charge(key, idempotency_key):
    with open("log", "a") as log:
        print(key, idempotency_key, file=log, flush=True)
    await asyncio.sleep(0.005)
    return os.getpid()

async def main(keys):
    async with kept.App("sqlite:///kept.db", worker=False) as app:
        print("ready", flush=True)
        sys.stdin.readline()
        done = await asyncio.gather(*(app.once(f"{n}", charge, f"{n}") for n in range(keys)))
        print(*done, flush=True)

asyncio.run(main(int(sys.argv[1])))
"""

HANG = f"""
import asyncio
import kept

async def charge(key, idempotency_key):
    with open("log", "a") as log:
        print(key, idempotency_key, file=log, flush=True)
    print("charged", flush=True)
    await asyncio.Event().wait()

async def main():
    async with kept.App("sqlite:///kept.db", worker=False) as app:
        await app.once("order-42", charge, "order-42", ttl={TTL_SECONDS})

asyncio.run(main())
"""


def test_processes_share_one_result(programs: Programs) -> None:
    """Each key is charged by one of them, and all hear by whom."""
    processes = [programs.start(CHARGE, str(KEYS)) for _ in range(PROCESSES)]
    assert [line_of(process) for process in processes] == ["ready"] * PROCESSES
    for process in processes:
        tell(process)
    answers = [line_of(process) for process in processes]
    assert len(set(answers)) == 1
    charged = [line.split()[0] for line in (programs.place / "log").read_text().splitlines()]
    assert sorted(charged, key=int) == [str(n) for n in range(KEYS)]


def test_a_runner_that_is_killed_is_followed(programs: Programs) -> None:
    """Killed between the effect and its record: it runs again, not before the lease is over, under
    the same idempotency key."""
    first = programs.start(HANG)
    assert line_of(first) == "charged"
    keys = [(programs.place / "log").read_text().split()[1]]

    async def charge(idempotency_key: str) -> str:
        keys.append(idempotency_key)
        return "receipt"

    async def follow() -> tuple[str, float]:
        url = f"sqlite:///{programs.place / 'kept.db'}"
        async with kept.App(url, worker=False) as app, asyncio.timeout(LONGEST_SECONDS):
            waiting = asyncio.ensure_future(app.once("order-42", charge))
            await asyncio.sleep(0)
            first.kill()
            killed_at = time.monotonic()
            return await waiting, time.monotonic() - killed_at

    receipt, seconds = asyncio.run(follow())
    assert receipt == "receipt"
    # The latest heartbeat was at most a third of the ttl before the kill.
    assert seconds > TTL_SECONDS / 2
    assert len(keys) == 2
    assert len(set(keys)) == 1
