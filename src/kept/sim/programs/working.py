"""Durable functions that do much at one time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any, Final

from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sdk.retry import Constant
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

LARGE_TEXT_CHARACTERS: Final = 80_000
# Of the items of a batch so many are done at the first try.
SHARE_OF_LUCKY: Final = 0.9


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    step = steps.step
    echo_job = app.function(steps.echo)

    @app.function
    async def in_turn(ctx: Context, count: int) -> int:
        return sum([await ctx.run(step, f"{ctx.id}/{number}") for number in range(count)])

    @app.function
    async def fan_out(ctx: Context, width: int, depth: int) -> int:
        here = [ctx.run(step, f"{ctx.id}/{number}") for number in range(width)]
        below = [ctx.call(fan_out, width, depth - 1) for _ in range(2 if depth else 0)]
        results: list[int] = await asyncio.gather(*here, *below)
        return sum(results)

    @app.function
    async def podium(ctx: Context, width: int) -> str:
        """Who came first is told in steps, so a replay in another order is noticed."""
        here = [ctx.run(steps.echo, str(number)) for number in range(width)]
        there = [ctx.call(echo_job, str(number)) for number in range(width, width + 2)]
        order = [await next_one for next_one in asyncio.as_completed([*here, *there])]
        await ctx.run(step, f"{ctx.id}/{' '.join(order)}")
        return "".join(sorted(order))

    @app.function
    async def generator(ctx: Context, count: int) -> list[str]:
        async def numbers() -> AsyncIterator[str]:
            for number in range(count):
                yield await ctx.run(steps.plain_echo, str(number), twice=number % 2 == 1)

        return [text async for text in numbers()]

    @app.function
    async def large(ctx: Context, text: str, times: int) -> int:
        """Carries much in arguments and results, of steps and of calls."""
        stepped = await ctx.run(steps.echo, text * times)
        called = await ctx.call(echo_job, stepped + "ü☃\u2028\0")
        return len(called)

    more = _drawing_and_gathering(app, steps)
    return [in_turn, fan_out, podium, generator, large, *more]


def _drawing_and_gathering(app: App, steps: Steps) -> list[Function[..., Any]]:
    step = steps.step

    async def told(key: str, text: str) -> None:
        await steps.take_time()
        steps.boundary.apply(key, text)

    @app.function
    async def drawing(ctx: Context, count: int) -> int:
        """What it draws under a step's key is the same in every replay, and so is its time."""
        for _ in range(count):
            text = f"{ctx.random().random()} {ctx.uuid()} {ctx.now().isoformat()}"
            await ctx.run(told, ctx.step_key, text)
            await ctx.sleep(ctx.random().choice((0.1, 1.5)))
        await ctx.sleep_until(ctx.now() + timedelta(seconds=1))
        await ctx.run(step, f"{ctx.id}/drawn")
        return count

    @app.batched(max_size=4, max_wait=0.2, retry=Constant(attempts=None, delay=0.1))
    async def together(keys: list[str]) -> list[Any]:
        """Of what is done together, now and then one fails."""
        await steps.take_time()
        return [_done(key) for key in keys]

    def _done(key: str) -> int | Exception:
        if steps.random.random() >= SHARE_OF_LUCKY:
            return ValueError(f"{key} is out of luck")
        steps.boundary.apply(key, key)
        return 1

    @app.function
    async def gathering(ctx: Context, width: int) -> int:
        results: list[int] = await asyncio.gather(
            *(ctx.run(together, f"{ctx.id}/{number}") for number in range(width))
        )
        return sum(results)

    return [drawing, gathering]


def _steps(random: Random) -> Program:
    count = random.randint(1, 12)
    return Program("in_turn", (count,), (count,), effects=tuple(map(str, range(count))))


def _halted(random: Random) -> Program:
    count = random.randint(3, 12)
    effects = tuple(map(str, range(count)))
    return Program("in_turn", (count,), (count,), halted=True, effects=effects)


def _fan_out(random: Random) -> Program:
    width, depth = random.randint(1, 6), random.choice((0, 0, 1, 2))
    effects = tuple(map(str, range(width)))
    return Program("fan_out", (width, depth), (_fan_out_total(width, depth),), effects=effects)


def _fan_out_total(width: int, depth: int) -> int:
    return width + (2 * _fan_out_total(width, depth - 1) if depth else 0)


def _podium(random: Random) -> Program:
    width = random.randint(1, 4)
    return Program("podium", (width,), ("".join(map(str, range(width + 2))),))


def _generator(random: Random) -> Program:
    count = random.randint(1, 5)
    expected = [str(number) * (2 if number % 2 else 1) for number in range(count)]
    return Program("generator", (count,), (expected,), hostile_id=True)


def _large(random: Random) -> Program:
    times = random.choice((1, 10, LARGE_TEXT_CHARACTERS // 4))
    return Program("large", ("text", times), (4 * times + 4,))


def _drawing(random: Random) -> Program:
    count = random.randint(1, 3)
    return Program("drawing", (count,), (count,), effects=("drawn",))


def _gathering(random: Random) -> Program:
    width = random.randint(1, 9)
    return Program("gathering", (width,), (width,), effects=tuple(map(str, range(width))))


CHOICES: Final[tuple[Drawn, ...]] = (
    _steps, _halted, _fan_out, _fan_out, _podium, _podium, _generator, _large, _drawing, _gathering,
)  # fmt: skip
