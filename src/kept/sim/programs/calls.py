"""Durable functions that call others: deep, recursive, by name, abandoned."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

# Nobody waits so long: who is abandoned is cancelled.
LONG_SECONDS: Final = 20_000.0
WIDE: Final = 70


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    step = steps.step

    @app.function
    async def leaf(ctx: Context, text: str) -> str:
        await ctx.sleep(0.2)
        await ctx.run(step, f"{ctx.id}/leaf")
        return f"leaf {text}"

    @app.function
    async def branch(ctx: Context, text: str) -> str:
        await ctx.run(step, f"{ctx.id}/branch")
        below: str = await ctx.call(leaf, text)
        return f"branch {below}"

    @app.function
    async def trunk(ctx: Context, text: str) -> str:
        one: str = await ctx.call(branch, text)
        two: str = await ctx.call("branch", text)
        await ctx.run(step, f"{ctx.id}/trunk")
        return one if one == two else f"{one} is not {two}"

    @app.function
    async def fibonacci(ctx: Context, n: int) -> int:
        if n < 2:
            return n
        one, two = await asyncio.gather(ctx.call(fibonacci, n - 1), ctx.call(fibonacci, n - 2))
        return int(one) + int(two)

    @app.function
    async def dawdler(ctx: Context, seconds: float) -> str:
        await ctx.sleep(seconds)
        return "dawdled"

    @app.function
    async def detacher(ctx: Context) -> str:
        """Lets work go, and ends before it."""
        one, two = await asyncio.gather(ctx.detached(dawdler, 3.0), ctx.detached("job"))
        await ctx.run(step, f"{ctx.id}/{'alone' if one != two else 'twice'}")
        return "let go"

    @app.function
    async def abandoner(ctx: Context) -> str:
        """Calls, waits for a moment, and cancels the call."""
        call = asyncio.ensure_future(ctx.call(dawdler, LONG_SECONDS))
        await ctx.sleep(0.3)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            await ctx.run(step, f"{ctx.id}/abandoned")
            return "abandoned"
        return "it came"

    @app.function
    async def wide(ctx: Context, width: int) -> int:
        """Waits for more than a worker looks at one by one."""
        results = await asyncio.gather(*(ctx.call("job") for _ in range(width)))
        return len(results)

    return [leaf, branch, trunk, fibonacci, dawdler, detacher, abandoner, wide]


def _trunk(random: Random) -> Program:
    return Program("trunk", ("x",), ("branch leaf x",), effects=("trunk",))


def _fibonacci(random: Random) -> Program:
    n = random.randint(1, 5)
    return Program("fibonacci", (n,), ((0, 1, 1, 2, 3, 5)[n],))


def _abandoner(random: Random) -> Program:
    return Program("abandoner", (), ("abandoned",), effects=("abandoned",))


def _wide(random: Random) -> Program:
    # Seldom wider than what one look takes: it costs as much as all others together.
    width = WIDE if random.random() < 0.1 else random.randint(2, 8)
    return Program("wide", (width,), (width,))


def _detacher(random: Random) -> Program:
    return Program("detacher", (), ("let go",), effects=("alone",))


CHOICES: Final[tuple[Drawn, ...]] = (_trunk, _fibonacci, _detacher, _abandoner, _wide)
