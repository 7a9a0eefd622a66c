"""Durable functions that wait, for time or for somebody outside."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from kept.errors import PromiseTimedOutError
from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

APPROVAL: Final = "approval"
ROUNDING_SECONDS: Final = 0.002


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    step = steps.step

    @app.function
    async def sleeper(ctx: Context, seconds: float) -> str:
        await ctx.run(step, f"{ctx.id}/before")
        await ctx.sleep(seconds)
        await ctx.run(step, f"{ctx.id}/after")
        return "slept"

    @app.function
    async def naps(ctx: Context, count: int) -> int:
        """Sleeps again and again, each time under another lease."""
        for number in range(count):
            await ctx.run(step, f"{ctx.id}/{number}")
            await ctx.sleep(0.3)
        return count

    @app.function
    async def approval(ctx: Context) -> str:
        answer: str = await ctx.promise(APPROVAL, type=str)
        await ctx.run(step, f"{ctx.id}/approved")
        return answer

    @app.function
    async def race(ctx: Context, seconds: float) -> str:
        waiting = asyncio.ensure_future(ctx.promise(APPROVAL, type=str))
        sleeping = asyncio.ensure_future(ctx.sleep(seconds))
        await asyncio.wait((waiting, sleeping), return_when=asyncio.FIRST_COMPLETED)
        await ctx.run(step, f"{ctx.id}/{'in time' if waiting.done() else 'late'}")
        if waiting.done():
            sleeping.cancel()
            return str(waiting.result())
        waiting.cancel()
        return "late"

    @app.function
    async def impatient(ctx: Context, seconds: float) -> str:
        try:
            answer: str = await ctx.promise(APPROVAL, timeout=seconds, type=str)
        except PromiseTimedOutError:
            answer = "nobody came"
        await ctx.run(step, f"{ctx.id}/{answer}")
        return answer

    return [sleeper, naps, approval, race, impatient, *_timed(app, step)]


def _timed(app: App, step: Function[..., Any]) -> list[Function[..., Any]]:
    """Functions that look at the time."""

    @app.function
    async def bounded(ctx: Context, seconds: float, limit: float) -> str:
        """A durable sleep under asyncio's timeout, and what that leaves to do."""
        try:
            async with asyncio.timeout(limit):
                await ctx.sleep(seconds)
            ending = "slept"
        except TimeoutError:
            ending = "too long"
        await ctx.run(step, f"{ctx.id}/{ending}")
        try:
            await asyncio.wait_for(ctx.promise("never"), 0.2)
        except TimeoutError:
            return ending
        return "somebody settled it"

    @app.function
    async def clocked(ctx: Context, seconds: float) -> str:
        """The code's own clock moves with what it waits for."""
        clock = asyncio.get_running_loop().time
        first = clock()
        await ctx.run(step, f"{ctx.id}/before")
        second = clock()
        await ctx.sleep(seconds)
        slept = clock() - second
        await ctx.run(step, f"{ctx.id}/after")
        moved = clock() >= second + seconds > first
        return "in order" if moved and slept >= seconds - ROUNDING_SECONDS else f"{slept:.3f} s"

    return [bounded, clocked]


def _sleeper(random: Random) -> Program:
    seconds = random.choice((0.05, 1.0, 4.0, 12.0))
    return Program("sleeper", (seconds,), ("slept",), effects=("before", "after"))


def _naps(random: Random) -> Program:
    count = random.randint(2, 6)
    return Program("naps", (count,), (count,), effects=tuple(map(str, range(count))))


def _approval(random: Random) -> Program:
    return Program("approval", (), ("yes",), approved=True, effects=("approved",))


def _race(random: Random) -> Program:
    return Program("race", (random.choice((1.0, 3.0)),), ("late", "yes"), approved=True)


def _impatient(random: Random) -> Program:
    effects = ("nobody came",)
    return Program("impatient", (random.choice((0.5, 2.0)),), ("nobody came",), effects=effects)


def _canceled(random: Random) -> Program:
    return Program("sleeper", (6.0,), ("slept",), canceled=True)


def _deadline(random: Random) -> Program:
    """The deadline of the whole strikes somewhere in the middle."""
    function, args, results = random.choice(
        (("sleeper", (2.0,), ("slept",)), ("naps", (5,), (5,)), ("fan_out", (3, 1), (9,)))
    )
    return Program(function, args, results, timeout=random.choice((0.2, 1.5, 3.0)))


def _bounded(random: Random) -> Program:
    if random.random() < 0.5:
        return Program("bounded", (20.0, 0.3), ("too long",), effects=("too long",))
    return Program("bounded", (0.1, 900.0), ("slept",), effects=("slept",))


def _clocked(random: Random) -> Program:
    seconds = random.choice((0.5, 2.0))
    return Program("clocked", (seconds,), ("in order",), effects=("before", "after"))


CHOICES: Final[tuple[Drawn, ...]] = (
    _sleeper, _naps, _approval, _race, _impatient, _canceled, _deadline, _bounded,
    _clocked,
)  # fmt: skip
