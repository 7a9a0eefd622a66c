"""`ctx.patched`: changed code beside runs that were begun before the change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import kept
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.sdk import payload
from tests.unit.sdk.site import DEADLINE_SECONDS, Site, eventually, site

Body = Callable[[kept.Context, kept.Function[..., Any]], Awaitable[Any]]


class Program:
    """One version of a program: its only workflow has this body."""

    def __init__(self, body: Body) -> None:
        self.app = kept.App("memory://", worker=False)
        self.done: list[str] = []

        @self.app.function
        async def step(label: str) -> str:
            self.done.append(label)
            return label

        @self.app.function
        async def flow(ctx: kept.Context) -> Any:
            return await body(ctx, step)

        self.flow = flow


async def before(ctx: kept.Context, step: kept.Function[..., Any]) -> Any:
    """As it was."""
    found = [await ctx.run(step, "first")]
    found.append(await ctx.promise("gate"))
    found.append(await ctx.run(step, "old"))
    found.append(await ctx.promise("door"))
    return found


async def after(ctx: kept.Context, step: kept.Function[..., Any]) -> Any:
    """A step before everything, and another one in the place of the old."""
    found = []
    if ctx.patched("greeting"):
        found.append(await ctx.run(step, "greeting"))
    found.append(await ctx.run(step, "first"))
    found.append(await ctx.promise("gate"))
    label = "new" if ctx.patched("better") else "old"
    found.append(await ctx.run(step, label))
    assert ctx.patched("better") is (label == "new")
    found.append(await ctx.promise("door"))
    return found


async def _open(place: Site, id: str) -> None:
    """Answers a promise as soon as it is asked for."""
    settle = r.PromiseSettle(id, PromiseState.RESOLVED, payload.encode("open"))

    async def asked() -> bool:
        return (await place.connection().send(settle)).ok

    await eventually(asked)


@pytest.mark.parametrize("passed", [[], ["gate"], ["gate", "door"]], ids=["first", "gate", "door"])
@pytest.mark.parametrize("cache", [100, 0], ids=["kept in memory", "replayed each time"])
async def test_work_goes_on_as_it_began(passed: list[str], cache: int) -> None:
    """Whatever the old code has done stays; what it has not come to is done the new way."""
    old, new = Program(before), Program(after)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        worker = place.worker(old.app, ttl=5)
        handle = await place.app(old.app).start(old.flow, id="w")
        for name in passed:
            await _open(place, f"w.{name}")
        await eventually(lambda: _is_asked(place, f"w.{'door' if passed else 'gate'}"))
        await worker.stop(grace=1)
        place.worker(new.app, cache=cache)
        for name in ("gate", "door"):
            await _open(place, f"w.{name}")
        middle = "old" if passed else "new"
        assert await handle == ["first", "open", middle, "open"]
    assert old.done + new.done == ["first", middle]


async def _is_asked(place: Site, id: str) -> bool:
    return (await place.connection().send(r.PromiseGet(id))).ok


@pytest.mark.parametrize("applied", [False, True], ids=["lost request", "lost answer"])
async def test_a_change_is_taken_in_every_replay(*, applied: bool) -> None:
    """However its worker dies, once it took the change it goes on with it."""
    for limit in range(1, 16):
        first, second = Program(after), Program(after)
        async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
            place.worker(first.app, place.connection(limit, applied=applied), ttl=0.4)
            handle = await place.app(first.app).start(first.flow, id="w")
            place.worker(second.app, ttl=5)
            for name in ("gate", "door"):
                await _open(place, f"w.{name}")
            assert await handle == ["greeting", "first", "open", "new", "open"], limit


async def test_a_change_has_a_name() -> None:
    """Else two of them could not be told apart."""

    async def nameless(ctx: kept.Context, step: kept.Function[..., Any]) -> Any:
        return ctx.patched("")

    program = Program(nameless)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(program.app)
        with pytest.raises(kept.PromiseRejectedError, match="has a name"):
            await place.app(program.app).run(program.flow)
