"""A function of which there is a new version, and old workers beside new ones on one queue (B9); and
its schedule, which each deploy puts as its program has it (B10)."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from kept.sdk.app import App
from kept.sdk.functions import Function
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

NAME: Final = "rollout"
# What workers with the old program do not know, and leave to others.
NEW: Final = f"{NAME}@2"
# Each program's schedule fires so often.
OLD_SECONDS: Final = 6
NEW_SECONDS: Final = 4


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme: the new program still knows the old version."""

    async def rollout_1(text: str) -> str:
        await steps.take_time()
        return f"old {text}"

    async def rollout_2(text: str) -> str:
        await steps.take_time()
        return f"new {text}"

    old: Function[..., Any] = app.function(name=NAME, version=1)(rollout_1)
    return [app.function(name=NAME, version=2)(rollout_2)] if steps.new else [old]


def schedule(app: App, function: Function[..., Any], *, new: bool, pace: int) -> None:
    """Declares the schedule of a worker's program, so many times slower. Opening the app puts it,
    whoever put it before."""
    if new:
        app.schedule(every=NEW_SECONDS * pace, overlap="skip", timeout=30, args=("new",))(function)
    else:
        app.schedule(every=OLD_SECONDS * pace, timeout=30, args=("old",))(function)


def _rollout(random: Random) -> Program:
    """Under a version, which must be the one that runs; or under the name alone, which means the
    latest that the asking program knows."""
    by_name, results = random.choice(
        (
            (f"{NAME}@1", ("old x",)),
            (NEW, ("new x",)),
            (NEW, ("new x",)),
            (NAME, ("old x", "new x")),
        )
    )
    return Program(NAME, ("x",), results, by_name=by_name)


CHOICES: Final[tuple[Drawn, ...]] = (_rollout,)
