"""Runs a storm: `make storm`, or `make storm ARGS="--events 20000"`. docs/storm.md explains it."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

import kept
from benchmarks.folder import fresh_folder
from benchmarks.served import server
from benchmarks.storm.boundary import Boundary
from benchmarks.storm.events import arrivals
from benchmarks.storm.program import app
from benchmarks.storm.queue import Queue
from benchmarks.storm.report import Outcome, complaints, delays, figures
from benchmarks.storm.sender import Sent, send
from benchmarks.storm.workers import Workers
from kept.client.connect import connect
from kept.runtime import SystemRuntime

EVENTS = 1_000_000
BOUNDARY = "boundary.db"
# The reason in a dead letter of work whose worker died each time.
LEASE_EXPIRED = "lease_expired"
WORKERS = 2
# Above that depth the server refuses more: what is accepted is soon done.
MAX_DEPTH = 500
KILL_SECONDS = 15.0
TOLD_SECONDS = 5.0
LOOK_SECONDS = 0.2
GIVE_UP_SECONDS = 120.0


async def storm(
    folder: Path, url: str, events: int, seed: int, workers: int, kill_seconds: float
) -> Outcome:
    """Sends, kills, waits for the end, replays what only kills ended, waits again."""
    sent = Sent()
    began = time.monotonic()
    crew = Workers(workers, url, folder / BOUNDARY, folder / "workers.log")
    killing = asyncio.ensure_future(_kill_always(crew, kill_seconds))
    async with kept.App(url, queue=app.queue, worker=False) as operator:
        queue = Queue(await connect(url, SystemRuntime()))
        try:
            await queue.put(MAX_DEPTH)
            sending = asyncio.ensure_future(send(url, arrivals(seed, events), sent))
            await _ended(sending, sent, queue, crew)
            killing.cancel()
            replayed = await _replay_the_killed(operator)
            await _drained(queue, crew)
            dead = {int(letter.id.partition("-")[2]) async for letter in operator.dead.list()}
        finally:
            killing.cancel()
            crew.stop()
            await queue.close()
    seconds = time.monotonic() - began
    return Outcome(seed, events, seconds, sent, crew.kills, crew.most_lost, dead, replayed)


async def _kill_always(crew: Workers, seconds: float) -> None:
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * seconds)
        crew.kill_one()


async def _ended(sending: asyncio.Task[None], sent: Sent, queue: Queue, crew: Workers) -> None:
    """Until all is sent and done; tells how far it is."""
    told = 0.0
    while not sending.done():
        await asyncio.wait([sending], timeout=LOOK_SECONDS)
        crew.check()
        if time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            stats = await queue.stats()
            print(
                f"  {sent.copies:>9,} copies sent, {stats.due:,} wait, {stats.delayed:,} for their "
                f"next try, {stats.acquired:,} run, {stats.dead:,} dead, {crew.kills} kills",
                flush=True,
            )
    await sending
    if not crew.kills:
        # A storm so short that it would have been over before the first: no storm goes without.
        crew.kill_one()
    await _drained(queue, crew)


async def _drained(queue: Queue, crew: Workers) -> None:
    end = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < end:
        crew.check()
        stats = await queue.stats()
        if stats.depth + stats.acquired == 0:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise SystemExit(f"the queue does not come to its end: {stats}")


async def _replay_the_killed(operator: kept.App) -> int:
    """What an operator does with work that is in the dead letters only because its workers died."""
    lost = [letter.id async for letter in operator.dead.list(reason=LEASE_EXPIRED)]
    if lost:
        await operator.dead.replay(*lost)
        await operator.dead.purge(*lost)
    return len(lost)


def run(events: int, seed: int, workers: int, kill_seconds: float) -> list[str]:
    """Prints what came of it; answers the complaints."""
    with fresh_folder() as folder, server(folder / "kept.db") as url:
        world = Boundary(folder / BOUNDARY)
        try:
            outcome = asyncio.run(storm(folder, url, events, seed, workers, kill_seconds))
            print()
            for name, value in figures(outcome, world):
                print(f"{name:<48} {value}")
            return [*complaints(outcome, world), *delays(world)]
        finally:
            world.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the events and their order")
    parser.add_argument(
        "--workers", type=int, default=WORKERS, help="processes, default %(default)s"
    )
    parser.add_argument(
        "--kill-every", type=float, default=KILL_SECONDS, help="seconds, default %(default)s"
    )
    arguments = parser.parse_args()
    print(
        f"{arguments.events:,} events, each up to 5 times, into a server on SQLite; "
        f"{arguments.workers} workers, one of them killed every {arguments.kill_every:g} s.\n"
    )
    wrong = run(arguments.events, arguments.seed, arguments.workers, arguments.kill_every)
    for complaint in wrong:
        print(f"FAILED: {complaint}")
    if wrong:
        sys.exit(1)
    print(
        "\nEvery effect once, every entity at its highest revision, poison and nothing else dead."
    )


if __name__ == "__main__":
    main()
