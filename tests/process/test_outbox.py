"""A relay that is killed: at the worst points, and at any."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import kept
from kept import outbox
from kept.client.connection import call
from kept.protocol import requests as r
from kept.protocol.records import PromiseRecord
from kept.protocol.responses import PromisePage
from tests.process.programs import SOURCE, Programs, line_of

RELAY = """
import asyncio, os, signal, sys
import kept
from kept import outbox
from kept.outbox import relay

FATAL, WHEN = sys.argv[1:]

class Deadly:
    def __init__(self, inner):
        self._inner = inner

    async def execute(self, statement, values=()):
        fatal = FATAL and statement.startswith(FATAL)
        if fatal and WHEN == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        rows = await self._inner.execute(statement, values)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    async def close(self):
        await self._inner.close()

opens = relay.open_database

async def open_database(*arguments):
    return Deadly(await opens(*arguments))

relay.open_database = open_database

async def main():
    async with kept.App("sqlite:///kept.db", worker=False) as app:
        print("ready", flush=True)
        async with outbox.Relay("sqlite:///shop.db", app, batch=5, interval=0.001):
            await asyncio.Event().wait()

asyncio.run(main())
"""

WRITE = """
import sqlite3, sys
from kept import outbox

shop = sqlite3.connect("shop.db", timeout=30)
print("ready", flush=True)
for number in range(int(sys.argv[1])):
    with shop:
        shop.execute("INSERT INTO orders VALUES (?)", (number,))
        order = f"customer-{number % 3}"
        outbox.enqueue(shop, "pack", args={"order": number}, order=order, queue="parcels")
        if number % 5 == 4:
            shop.rollback()
print("done", flush=True)
"""
WRITTEN = 150
KILLS = 6
LONGEST_SECONDS = 40


@pytest.fixture
def place(programs: Programs) -> Path:
    """A directory with the shop's database."""
    with contextlib.closing(sqlite3.connect(programs.place / "shop.db")) as shop, shop:
        shop.execute("PRAGMA journal_mode = WAL")
        shop.execute("CREATE TABLE orders (number INTEGER)")
        outbox.create_table(shop)
    return programs.place


def drained(place: Path) -> list[PromiseRecord]:
    """All jobs that are in kept, once a relay that lives has moved the rest."""

    async def drain() -> list[PromiseRecord]:
        url = f"sqlite:///{place / 'kept.db'}"
        async with kept.App(url, worker=False) as app, asyncio.timeout(LONGEST_SECONDS):
            relay = outbox.Relay(f"sqlite:///{place / 'shop.db'}", app)
            assert (await relay.drain()).left == 0
            found = (await call(app.connection, r.PromiseSearch(limit=1000))).data
            assert isinstance(found, PromisePage)
            return found.promises

    return asyncio.run(drain())


def number_of(job: PromiseRecord) -> int:
    number = json.loads(job.param.data or "")["kwargs"]["order"]
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize(
    ("fatal", "when"),
    [("SELECT", "before"), ("SELECT", "after"), ("DELETE", "before"), ("DELETE", "after")],
)
def test_killed_at_a_point(programs: Programs, place: Path, fatal: str, when: str) -> None:
    """Before it has read, before it has sent, between sending and deleting, after deleting: there is
    each job once."""
    with contextlib.closing(sqlite3.connect(place / "shop.db")) as shop, shop:
        ids = [outbox.enqueue(shop, "pack", args={"order": n}) for n in range(12)]
    for _ in range(2):
        relay = programs.start(RELAY, fatal, when)
        assert line_of(relay) == "ready"
        assert relay.wait(LONGEST_SECONDS) < 0
    assert sorted(job.id for job in drained(place)) == sorted(ids)


def test_killed_again_and_again(programs: Programs, place: Path) -> None:
    """While orders are written, some of them rolled back: there is one job for each order that is
    there, and those of one customer came in their order."""
    writer = programs.start(WRITE, str(WRITTEN))
    assert line_of(writer) == "ready"
    for _ in range(KILLS):
        relay = programs.start(RELAY, "", "")
        assert line_of(relay) == "ready"
        with contextlib.closing(sqlite3.connect(place / "kept.db")) as store:
            # It is killed in its work, wherever that is, once it has done some.
            before = moved(store)
            for _ in range(100_000):
                if moved(store) > before or writer.poll() is not None:
                    break
        relay.kill()
    assert line_of(writer) == "done"
    jobs = drained(place)
    with contextlib.closing(sqlite3.connect(place / "shop.db")) as shop:
        orders = [number for (number,) in shop.execute("SELECT number FROM orders")]
    assert sorted(map(number_of, jobs)) == orders
    customers: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for job in jobs:
        customers[number_of(job) % 3].append((number_of(job), job.created_at))
    for mine in customers.values():
        instants = [created for _, created in sorted(mine)]
        assert instants == sorted(instants)


def moved(store: sqlite3.Connection) -> int:
    count: int = store.execute("SELECT COUNT(*) FROM promises").fetchone()[0]
    return count


def test_the_command_relays_until_it_is_told_to_stop(place: Path) -> None:
    """`kept outbox relay` moves what comes, and ends well on SIGTERM."""
    (place / "kept.db").touch()
    command = ["--url", "sqlite:///kept.db", "outbox", "relay", "sqlite:///shop.db"]
    relay = subprocess.Popen(
        [sys.executable, "-m", "kept", *command],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    try:
        with contextlib.closing(sqlite3.connect(place / "shop.db")) as shop:
            with shop:
                id = outbox.enqueue(shop, "pack", args={"order": 1})
            waiting = 1
            while waiting and relay.poll() is None:
                (waiting,) = shop.execute("SELECT COUNT(*) FROM kept_outbox").fetchone()
        relay.terminate()
        assert relay.wait(LONGEST_SECONDS) == 0
    finally:
        relay.kill()
        relay.wait()
    assert [job.id for job in drained(place)] == [id]
