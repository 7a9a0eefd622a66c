"""What durable code says of itself: `ctx.set_state`, `ctx.progress`, `app.state` (protocol B8)."""

from __future__ import annotations

import asyncio

import pytest

import kept
from kept.errors import NotFoundError, PromiseRejectedError
from kept.protocol.records import PromiseState
from tests.unit.sdk.site import DEADLINE_SECONDS, eventually, site


@pytest.mark.parametrize("cache", [100, 0], ids=["kept in memory", "replayed each time"])
async def test_anyone_may_read_what_running_work_says(cache: int) -> None:
    """While it runs, and after its end; a replay tells nothing that is no longer so."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def pack(ctx: kept.Context) -> None:
        ctx.set_state(stage="waiting", parcels=3, urgent=True)
        ctx.progress(0.5)
        await ctx.receive("go")
        ctx.set_state(stage="packed", urgent=None)
        ctx.progress(1)

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        client = place.app(app)
        with pytest.raises(NotFoundError):
            await client.state("none")
        handle = await client.start(pack)
        assert await handle.state() == ({}, None, PromiseState.PENDING)
        connection = place.connection()
        place.worker(app, connection, cache=cache)

        async def look() -> bool:
            return (await handle.state()).progress == 0.5

        await eventually(look)
        said = await client.state(handle.id)
        assert said.attributes == {"stage": "waiting", "parcels": "3", "urgent": "true"}
        await handle.send("go")
        await handle
        expected = ({"stage": "packed", "parcels": "3"}, 1.0, PromiseState.RESOLVED)
        assert await client.state(handle.id) == expected
        # A replay cannot know that the first is stored already.
        assert connection.requests["task.annotate"] == (2 if cache else 3)


async def test_what_cannot_be_said_is_refused_at_once() -> None:
    """The code hears it where it says it."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def wrong(ctx: kept.Context, what: str) -> None:
        if what == "much":
            ctx.set_state(x="y" * 2_000)
        elif what == "many":
            ctx.set_state(**{f"n{number}": number for number in range(65)})
        else:
            ctx.progress(1.5)

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        client = place.app(app)
        for what in ("much", "many", "progress"):
            with pytest.raises(PromiseRejectedError, match="ConfigurationError"):
                await client.run(wrong, what)


async def test_a_handle_explains_why_its_work_does_not_run() -> None:
    """Nobody runs it at first; then it waits for a message, and says so."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def pack(ctx: kept.Context) -> None:
        await ctx.receive("go")

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        handle = await place.app(app).start(pack)
        found = await handle.explain()
        assert found.reasons[0].kind == "no_worker"
        assert str(found).startswith(found.text)
        place.worker(app, place.connection())

        async def suspended() -> bool:
            return (await handle.explain()).reasons[0].kind == "suspended"

        await eventually(suspended)
        assert [each.id for each in (await handle.explain()).awaits] == [f"{handle.id}!go.1"]
        await handle.send("go")
        await handle
        assert (await handle.explain()).reasons[0].kind == "settled"
