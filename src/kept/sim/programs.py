"""Durable functions for simulated workers, each with what it must come to whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from kept.errors import PromiseTimedOutError
from kept.runtime import Runtime
from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sdk.retry import Constant
from kept.sim.ledger import Boundary

FLAKY_FAILURES: Final = 2
# A step's own time in seconds, mostly; now and then it takes longer than a lease.
STEP_SECONDS: Final = (0.0, 0.5)
LONG_STEP_SECONDS: Final = 20.0
SHARE_OF_LONG_STEPS: Final = 0.02
APPROVAL: Final = "approval"


class Program(NamedTuple):
    """Work to start: `function` by name, its arguments, and the results that are right. `canceled`:
    whoever starts it cancels it, so that this too is right. `approved`: it waits for a promise."""

    function: str
    args: tuple[Any, ...]
    results: tuple[Any, ...]
    canceled: bool = False
    approved: bool = False
    # The effects that must have happened, as suffixes of the id.
    effects: tuple[str, ...] = ()


def draw_program(random: Random) -> Program:
    """One of the programs, with arguments."""
    return random.choice(_CHOICES)(random)


def _job(random: Random) -> Program:
    return Program("job", (), ("done",))


def _blocking(random: Random) -> Program:
    return Program("blocking_job", (random.randint(0, 99),), ("done",))


def _flaky(random: Random) -> Program:
    return Program("flaky_job", (), ("done",))


def _fan_out(random: Random) -> Program:
    width, depth = random.randint(1, 6), random.choice((0, 0, 1, 2))
    return Program("fan_out", (width, depth), (_fan_out_total(width, depth),))


def _fan_out_total(width: int, depth: int) -> int:
    return width + (2 * _fan_out_total(width, depth - 1) if depth else 0)


def _sleeper(random: Random) -> Program:
    return Program("sleeper", (random.choice((0.05, 1.0, 4.0, 12.0)),), ("slept",))


def _approval(random: Random) -> Program:
    return Program("approval", (), ("yes",), approved=True)


def _race(random: Random) -> Program:
    return Program("race", (random.choice((1.0, 3.0)),), ("late", "yes"), approved=True)


def _podium(random: Random) -> Program:
    width = random.randint(1, 4)
    return Program("podium", (width,), ("".join(map(str, range(width + 2))),))


def _impatient(random: Random) -> Program:
    return Program("impatient", (random.choice((0.5, 2.0)),), ("nobody came",))


def _canceled(random: Random) -> Program:
    return Program("sleeper", (6.0,), ("slept",), canceled=True)


def _steps(random: Random) -> Program:
    count = random.randint(1, 12)
    return Program("in_turn", (count,), (count,))


_CHOICES: Final[tuple[Callable[[Random], Program], ...]] = (
    _job,
    _blocking,
    _flaky,
    _fan_out,
    _fan_out,
    _sleeper,
    _approval,
    _race,
    _podium,
    _podium,
    _impatient,
    _canceled,
    _steps,
)


# The functions that clients start, by name.
PROGRAM_NAMES: Final = tuple(dict.fromkeys(choice(Random(0)).function for choice in _CHOICES))


def register(
    app: App, runtime: Runtime, random: Random, boundary: Boundary
) -> dict[str, Function[..., Any]]:
    """Gives an app all functions, as one process has them; by name those that can be started."""
    steps = _Steps(runtime, random, boundary)
    flaky = Constant(attempts=None, delay=0.5)
    jobs: list[Function[..., Any]] = [
        app.function(steps.job),
        app.function(steps.blocking_job),
        app.function(name="flaky_job", retry=flaky)(steps.flaky_job),
    ]
    step: Function[..., Any] = app.function(name="step", retry=Constant(attempts=None, delay=0.2))(
        steps.step
    )
    durable = [*_working(app, steps, step), *_waiting(app, step)]
    return {function.name: function for function in (*jobs, *durable)}


def _working(app: App, steps: _Steps, step: Function[..., Any]) -> list[Function[..., Any]]:
    """Functions that do much at one time."""
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

    return [in_turn, fan_out, podium]


def _waiting(app: App, step: Function[..., Any]) -> list[Function[..., Any]]:
    """Functions that wait, for time or for somebody outside."""

    @app.function
    async def sleeper(ctx: Context, seconds: float) -> str:
        await ctx.run(step, f"{ctx.id}/before")
        await ctx.sleep(seconds)
        await ctx.run(step, f"{ctx.id}/after")
        return "slept"

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

    return [sleeper, approval, race, impatient]


class _Steps:
    """Plain functions: what they do outside is seen at the boundary."""

    def __init__(self, runtime: Runtime, random: Random, boundary: Boundary) -> None:
        self._runtime = runtime
        self._random = random
        self._boundary = boundary

    async def step(self, key: str) -> int:
        await self._take_time()
        self._boundary.apply(key, key)
        await self._take_time()
        return 1

    async def echo(self, text: str) -> str:
        await self._take_time()
        return text

    async def job(self) -> str:
        await self._take_time()
        return "done"

    def blocking_job(self, number: int) -> str:
        return "done"

    async def flaky_job(self) -> str:
        await self._take_time()
        if self._random.random() < 1 / FLAKY_FAILURES:
            raise ValueError("a flaky job fails")
        return "done"

    async def _take_time(self) -> None:
        seconds = self._random.uniform(*STEP_SECONDS)
        if self._random.random() < SHARE_OF_LONG_STEPS:
            seconds = LONG_STEP_SECONDS
        await self._runtime.sleep(seconds)
