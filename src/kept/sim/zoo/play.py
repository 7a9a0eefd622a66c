"""Plays a bug: seeds of the simulation until one breaks, and worlds of the explorer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from kept.sim import world
from kept.sim.explorer.explore import Finding, explore
from kept.sim.explorer.worlds import BY_NAME, ONE, TWO
from kept.sim.mix import draw_mix
from kept.sim.run import run_seed
from kept.sim.zoo.bug import Bug, applied

DEFAULT_TICKS: Final = 25
# Long enough for what is not broken, and short, because a broken world is played to its end.
SETTLE_SECONDS: Final = 600
_WORLDS: Final = BY_NAME | {ONE.name: ONE, TWO.name: TWO}


class Seen(NamedTuple):
    """A bug was found in the simulation: by which oracle, in which seed, what it said. `number`
    counts the seeds up to that one, with those that had no need to be played."""

    number: int
    seed: int
    oracle: str
    message: str


class Walked(NamedTuple):
    """What the explorer found, and after how many states."""

    world: str
    states: int
    finding: Finding | None


class OutOfTime(Exception):
    """There was no time for all seeds."""


def hunt(
    bug: Bug | None,
    seeds: Iterable[int],
    ticks: int = DEFAULT_TICKS,
    has_time: Callable[[], bool] = lambda: True,
) -> Seen | None:
    """The first of the seeds in which a bug shows; `bug` None: no bug is put in. Raises `OutOfTime`
    before a seed for which there is none left."""
    with _patience(), _inside(bug):
        for number, seed in enumerate(seeds, start=1):
            if bug is not None and not bug.may_show(draw_mix(seed)):
                continue
            if not has_time():
                raise OutOfTime
            breakage = run_seed(seed, ticks).breakage
            if breakage is not None:
                return Seen(number, seed, breakage.oracle, breakage.why)
    return None


def walk(bug: Bug, clock: Callable[[], float]) -> Iterator[Walked]:
    """The worlds in which the explorer may find a bug, one after another."""
    for name, depth in bug.walks:
        with applied(bug):
            done = explore(_WORLDS[name], clock, depth=depth)
        yield Walked(name, done.states, done.finding)


@contextmanager
def _inside(bug: Bug | None) -> Iterator[None]:
    if bug is None:
        yield
        return
    with applied(bug):
        yield


@contextmanager
def _patience() -> Iterator[None]:
    seconds, world.SETTLE_SECONDS = world.SETTLE_SECONDS, SETTLE_SECONDS  # type: ignore[misc]
    try:
        yield
    finally:
        world.SETTLE_SECONDS = seconds  # type: ignore[misc]
