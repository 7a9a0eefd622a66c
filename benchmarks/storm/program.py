"""The workers of a storm: `kept worker benchmarks.storm.program:app`."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import kept
from benchmarks.storm.boundary import Boundary

ATTEMPTS = 4
LEASE_SECONDS = 5.0
# A killed worker keeps its locks for so long from everybody else.
LOCK_SECONDS = 2.0
CONCURRENCY = 24

app = kept.App(
    os.environ.get("STORM_URL"), queue="events", ttl=LEASE_SECONDS, concurrency=CONCURRENCY
)
_boundary: list[Boundary] = []


class HandlerError(Exception):
    """The handler of an event fails."""


def boundary() -> Boundary:
    if not _boundary:
        _boundary.append(Boundary(Path(os.environ["STORM_BOUNDARY"])))
    return _boundary[0]


@app.function(retry=kept.Exponential(attempts=ATTEMPTS, base=0.05, limit=1.0))
async def handle(
    event: int, entity: int, revision: int, failures: int | None, sent_ms: int
) -> None:
    """Brings the entity to the revision, unless it is beyond, and has one effect. It fails so many
    times before, for ever where that is None."""
    world = boundary()
    tries = world.begin(event, int(time.time() * 1_000) - sent_ms)
    if failures is None:
        raise HandlerError(f"event {event} is poison")
    if tries <= failures:
        raise HandlerError(f"event {event} fails {failures} times, this is the {tries}.")
    async with AsyncExitStack() as held:
        fence = await _locked(held, f"entity-{entity}", world)
        try:
            await app.guard(f"entity-{entity}", revision)
        except kept.StaleRevisionError:
            world.late(event)
        else:
            world.write(entity, revision, fence)
    world.apply(event)


async def _locked(held: AsyncExitStack, resource: str, world: Boundary) -> int:
    """The fence of the lock. Tries first, so that it is known how often somebody else had it."""
    began, contended = time.perf_counter(), False
    try:
        lease = await held.enter_async_context(app.lock(resource, ttl=LOCK_SECONDS, wait=0))
    except kept.LockHeldError:
        contended = True
        lease = await held.enter_async_context(app.lock(resource, ttl=LOCK_SECONDS))
    world.waited((time.perf_counter() - began) * 1_000, contended=contended)
    return lease.fence
