"""Durable functions that meet errors: of steps, of jobs, of their own."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from kept.errors import PromiseRejectedError
from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sdk.retry import Constant
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

STEP_ATTEMPTS: Final = 3


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    step, boundary = steps.step, steps.boundary

    async def always(key: str) -> int:
        boundary.attempt(key, STEP_ATTEMPTS)
        raise ValueError(f"{key} never works")

    async def hopeless(key: str) -> int:
        boundary.attempt(key)
        raise KeyError(key)

    def second_time(key: str) -> str:
        if boundary.attempt(key, most=2) < 2:
            raise OSError(key)
        return "recovered"

    retry = Constant(attempts=STEP_ATTEMPTS, delay=0.1, give_up_on=(KeyError,))
    exhausted: Function[..., Any] = app.function(name="exhausted", retry=retry)(always)
    given_up: Function[..., Any] = app.function(name="given_up", retry=retry)(hopeless)
    recovering: Function[..., Any] = app.function(name="recovering", retry=retry)(second_time)

    @app.function
    async def catches(ctx: Context) -> list[str]:
        """What steps and calls raise is caught, and the work goes on."""
        seen: list[str] = []
        for function in (exhausted, given_up):
            for ask in (ctx.run, ctx.call):
                key = f"{ctx.id}/tries/{function.name}/{ask.__name__}"
                try:
                    await ask(function, key)
                except PromiseRejectedError as error:
                    seen.append(error.type)
        seen.append(await ctx.run(recovering, f"{ctx.id}/recovers"))
        await ctx.run(step, f"{ctx.id}/{' '.join(seen)}")
        return seen

    @app.function
    async def fails(ctx: Context) -> str:
        """Fails itself, while a branch of it still runs, which is waited for."""

        async def branch() -> None:
            await ctx.sleep(2.0)
            await ctx.run(step, f"{ctx.id}/branch")

        asyncio.create_task(branch())  # noqa: RUF006 - a branch that nobody looks after
        await ctx.run(step, f"{ctx.id}/before")
        raise LookupError("as planned")

    @app.function
    async def unstorable(ctx: Context) -> object:
        await ctx.run(step, f"{ctx.id}/before")
        return object()

    return [catches, fails, unstorable]


def _catches(random: Random) -> Program:
    expected = ["ValueError", "ValueError", "KeyError", "KeyError", "recovered"]
    tries = (("tries/exhausted/run", STEP_ATTEMPTS), ("recovers", 2))
    return Program("catches", (), (expected,), effects=(" ".join(expected),), tries=tries)


def _fails(random: Random) -> Program:
    return Program("fails", (), (), errors=("LookupError",), effects=("before", "branch"))


def _unstorable(random: Random) -> Program:
    return Program("unstorable", (), (), errors=("TypeError",))


CHOICES: Final[tuple[Drawn, ...]] = (_catches, _fails, _unstorable)
