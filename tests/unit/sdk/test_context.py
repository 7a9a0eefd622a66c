"""What a Context tells durable code of itself, and how it lets work go."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import kept
from kept.protocol.requests import PromiseGet
from kept.sdk.durable_values import Info
from tests.unit.sdk.site import DEADLINE_SECONDS, Site, eventually, site


async def _is_there(place: Site, id: str) -> bool:
    return (await place.connection().send(PromiseGet(id))).ok


async def test_what_is_known_of_the_work() -> None:
    """Its id, its place in the tree, its deadline and its trace; what it calls has its own."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    app = kept.App("memory://", worker=False)
    seen: list[Info] = []

    @app.function
    async def child(ctx: kept.Context) -> None:
        seen.append(ctx.info)

    @app.function
    async def root(ctx: kept.Context) -> str:
        seen.append(ctx.info)
        await ctx.call(child)
        return ctx.now().isoformat()

    before = datetime.now(UTC)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        handle = await place.app(app).start(
            root, id="root", timeout=60, audit=kept.Audit(trace=trace)
        )
        began = datetime.fromisoformat(await handle)
    assert abs(began - before) < timedelta(seconds=DEADLINE_SECONDS)
    deadline = seen[0].deadline
    assert deadline is not None
    assert timedelta(seconds=59) < deadline - before < timedelta(seconds=60 + DEADLINE_SECONDS)
    assert seen[0] == Info("root", 1, None, "root", deadline, trace)
    assert seen[1] == Info("root.1", 1, "root", "root", None, trace)


async def test_detached_work_is_not_waited_for() -> None:
    """Its caller ends while it waits, and it is not canceled with the caller's tree."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def waits(ctx: kept.Context) -> object:
        return await ctx.promise("word")

    @app.function
    async def lets_go(ctx: kept.Context) -> str:
        return await ctx.detached(waits)

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        ours = place.app(app)
        handle = await ours.start(lets_go, id="caller")
        id = await handle
        left = ours.handle(id)
        assert id == "caller.1"
        assert not await left.done()
        await handle.cancel()
        await eventually(lambda: _is_there(place, f"{id}.word"))
        await ours.promises.resolve(f"{id}.word", "late")
        assert await left == "late"


async def test_sleep_until_wants_a_time_zone() -> None:
    """Else nobody knows which instant is meant; one that has passed is no wait."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def sleeper(ctx: kept.Context) -> str:
        await ctx.sleep_until(datetime(1970, 1, 1, tzinfo=UTC))
        with pytest.raises(kept.ConfigurationError, match="time zone"):
            await ctx.sleep_until(datetime(2000, 1, 1))  # noqa: DTZ001
        return "awake"

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        assert await place.app(app).run(sleeper) == "awake"


async def test_promises_are_settled_from_outside() -> None:
    """By id, once; the same again is no error, another outcome is, and so is one that nobody wants."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def review(ctx: kept.Context) -> list[object]:
        words: list[object] = [await ctx.promise("first", type=int)]
        try:
            words.append(await ctx.promise("second"))
        except kept.PromiseRejectedError as error:
            words.append(str(error))
        return words

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        ours = place.app(app)
        with pytest.raises(kept.NotFoundError):
            await ours.promises.resolve("review.first", 1)
        handle = await ours.start(review, id="review")
        await eventually(lambda: _is_there(place, "review.first"))
        for _ in range(2):
            await ours.promises.resolve("review.first", 1)
        with pytest.raises(kept.ConflictError, match="settled before"):
            await ours.promises.resolve("review.first", 2)
        await eventually(lambda: _is_there(place, "review.second"))
        await ours.promises.reject("review.second", "not like this")
        first, second = await handle
    assert first == 1
    assert "not like this" in str(second)
