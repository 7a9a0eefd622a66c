"""A worker works on nothing for which it may have lost the lease."""

from __future__ import annotations

import asyncio

import kept
from tests.unit.sdk.site import DEADLINE_SECONDS, site


async def test_a_worker_that_hears_nothing_stops() -> None:
    """A heartbeat that hangs for longer than the lease does not keep its worker at work."""
    app = kept.App()
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.function
    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        connection = place.connection()
        place.worker(app, connection)
        await place.app(app).start(endless)
        await started.wait()
        connection.broken.set()
        await stopped.wait()
