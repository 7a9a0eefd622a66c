"""Durable functions that receive messages, which must come once each and in order."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

MAILBOX: Final = "talk"
# After so many receives that timed out, the function waits for as long as it takes.
MAX_TIMEOUTS: Final = 3


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    step = steps.step

    @app.function
    async def conversation(ctx: Context, total: int, patience: float) -> str:
        """One message after the other; a receive that times out must take none."""
        heard: list[str] = []
        timeouts = 0
        while len(heard) < total:
            limit = patience if timeouts < MAX_TIMEOUTS else None
            try:
                heard.append(await ctx.receive(MAILBOX, timeout=limit, type=str))
            except TimeoutError:
                timeouts += 1
                await ctx.run(step, f"{ctx.id}/waited {timeouts}")
                continue
            ctx.set_state(heard=len(heard))
            ctx.progress(len(heard) / total)
            await ctx.run(step, f"{ctx.id}/heard {heard[-1]}")
        return " ".join(heard)

    @app.function
    async def chorus(ctx: Context, width: int) -> str:
        """Several receive at one time, and some give up: the others are served in their order."""
        await ctx.sleep(0.5)
        asked = [asyncio.ensure_future(ctx.receive(MAILBOX, type=str)) for _ in range(2 * width)]
        await ctx.run(step, f"{ctx.id}/asked")
        for odd in [each for each in asked[1::2] if not each.done()]:
            odd.cancel()
        given = await asyncio.gather(*asked, return_exceptions=True)
        heard = [text for text in given if isinstance(text, str)]
        heard += [await ctx.receive(MAILBOX, type=str) for _ in range(2 * width - len(heard))]
        return " ".join(heard)

    return [conversation, chorus]


def _conversation(random: Random) -> Program:
    total = random.randint(1, 6)
    effects = tuple(f"heard {number}" for number in range(total))
    args = (total, random.choice((0.05, 0.5, 3.0)))
    return Program("conversation", args, (_text(total),), messages=total, effects=effects)


def _chorus(random: Random) -> Program:
    width = random.randint(1, 3)
    total = 2 * width
    return Program("chorus", (width,), (_text(total),), messages=total, effects=("asked",))


def _text(total: int) -> str:
    return " ".join(map(str, range(total)))


CHOICES: Final[tuple[Drawn, ...]] = (_conversation, _conversation, _chorus)
