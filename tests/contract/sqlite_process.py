"""A process of its own on a SQLite store, for the tests that need several: run with -m.

count PATH NAME TIMES     adds one to a shared number so often; prints the numbers it made
listen PATH               prints each notice as JSON
hold PATH                 begins a transaction, saves, says so, and never commits
churn PATH NAME           commits groups of promises without end; prints each group's number
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from kept.contract.store_samples import NOW, acquired, jobs, queued
from kept.protocol.storage import Changes, Edge, Notice, Reads
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore

GROUP = 100


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def _go_ahead() -> None:
    """Waits for a line from the parent, or for its end."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def count(store: SqliteStore, name: str, times: str) -> None:
    _say("ready")
    await _go_ahead()
    made: list[int] = []
    for number in range(int(times)):
        async with store.transaction() as transaction:
            loaded = await transaction.load("default", Reads(objects={"n"}), NOW)
            before = loaded.tasks["n"]
            assert before is not None
            made.append(before.version + 1)
            after = acquired("n", NOW, version=made[-1])
            await transaction.save("default", Changes(tasks={"n": after}))
            await transaction.commit(f"{name}-{number}", NOW, Notice())
    _say(msgspec.json.encode(made).decode())


async def listen(store: SqliteStore) -> None:
    store.on_notice = lambda notice: _say(msgspec.json.encode(notice).decode())
    _say("ready")
    await _go_ahead()


async def hold(store: SqliteStore) -> None:
    async with store.transaction() as transaction:
        await transaction.save("default", jobs(*(queued(f"held{n}") for n in range(GROUP))))
        _say("saved")
        await _go_ahead()


async def churn(store: SqliteStore, name: str) -> None:
    number = 0
    while True:
        tasks = [queued(f"{name}.{number}.{n}") for n in range(GROUP)]
        changes = jobs(*tasks)
        changes.callbacks = {Edge(task.id, "awaiter"): True for task in tasks}
        async with store.transaction() as transaction:
            await transaction.save("default", changes)
            await transaction.commit(f"{name}-{number}", NOW, Notice())
        _say(str(number))
        number += 1


async def main() -> None:
    what, path, *rest = sys.argv[1:]
    store = SqliteStore(path, SystemRuntime())
    await store.open()
    match what:
        case "count":
            await count(store, *rest)
        case "listen":
            await listen(store)
        case "hold":
            await hold(store)
        case "churn":
            await churn(store, *rest)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
