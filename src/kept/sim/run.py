"""One seed from its first instant to its verdict."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

import msgspec

from kept.sim.bounds import bounded
from kept.sim.faults import Faults
from kept.sim.loop import SimulatedLoop, SimulationStuckError
from kept.sim.mix import Mix, draw_mix
from kept.sim.process import Process
from kept.sim.requests import RAW_KINDS
from kept.sim.scripts import playable
from kept.sim.world import Complaints, World

# From so many ticks on, every kind must have succeeded and every fault must have struck.
GATED_TICKS: Final = 300
SHOWN_LINES: Final = 40


class Outcome(msgspec.Struct, kw_only=True):
    """What a run came to. `broken` is None, or what broke; `digest` is the trace's SHA-256."""

    seed: int
    ticks: int
    mix: Mix
    digest: str
    broken: str | None
    # The last lines of the trace, where something broke.
    lines: list[str]
    virtual_seconds: float
    callbacks: int
    events: int
    commits: int
    goals: int
    effects: int
    repeated: int
    compared: int
    faults: dict[str, int]
    answers: dict[str, int]
    properties: dict[str, int]

    @property
    def ok(self) -> bool:
        return self.broken is None


def run_seed(seed: int, ticks: int, mix: Mix | None = None) -> Outcome:
    """Plays a seed for so many ticks (virtual seconds) with faults, then until all has settled."""
    mix = mix or draw_mix(seed)
    kernel = Process("kernel")
    loop = SimulatedLoop(Random(f"{seed}/order"), kernel, shuffled=mix.shuffled)
    with _undisturbed(), bounded(mix.bounds):
        world = World(seed, mix, loop)
        complaints = Complaints(world.ledger.break_off)
        with _heard(complaints):
            broken = _play(world, ticks)
            for machine in world.machines.values():
                if machine.process is not None:
                    machine.process.kill()
            kernel.kill()
        loop.close()
        return _outcome(world, ticks, broken)


def _play(world: World, ticks: int) -> str | None:
    try:
        world.loop.run_until_complete(_acts(world, ticks))
    except (AssertionError, SimulationStuckError) as error:
        return f"{type(error).__name__}: {error}"
    return None


async def _acts(world: World, ticks: int) -> None:
    faults = Faults(world, ticks)
    world.start_all()
    faults.start()
    await world.run(ticks)
    faults.stop()
    world.busy = False
    await world.settle()
    await world.stop_all()
    _require_all(world, ticks)


def _require_all(world: World, ticks: int) -> None:
    """The gate against empty passes."""
    if ticks < GATED_TICKS:
        return
    missing = [kind for kind in RAW_KINDS if not world.ledger.succeeded[kind]]
    assert not missing, f"an empty pass: these kinds never succeeded: {', '.join(missing)}"
    struck = world.trace.counts
    unplayed = [name for name in playable(world.mix) if not struck[f"script {name}"]]
    assert not unplayed, f"an empty pass: these scripts were never played: {', '.join(unplayed)}"
    delivered = world.deliveries
    assert delivered.executes, "an empty pass: no execute was delivered"
    assert delivered.unblocks, "an empty pass: no unblock was delivered"
    idle = [fault for fault in world.mix.faults if not struck[f"fault {fault}"]]
    assert not idle, f"an empty pass: these faults never struck: {', '.join(idle)}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The garbage collector runs when it likes, and what it frees runs code: not during a play.

    What was there before is set aside: what a play leaves is soon found without looking at that.
    """
    enabled = gc.isenabled()
    gc.disable()
    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    gc.freeze()
    try:
        with warnings.catch_warnings():
            # Of coroutines that a dead process had made and not begun.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        gc.unfreeze()
        if enabled:
            gc.enable()


def _unraisable(raised: sys.UnraisableHookArgs) -> None:
    """Asyncio's groups await while a dead process's coroutines are closed, and are told off."""
    if not isinstance(raised.exc_value, RuntimeError):
        sys.__unraisablehook__(raised)


@contextmanager
def _heard(complaints: Complaints) -> Iterator[None]:
    """The system's log goes to us, and nowhere else."""
    log = logging.getLogger("kept")
    level, propagate = log.level, log.propagate
    log.addHandler(complaints)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(complaints)
        log.setLevel(level)
        log.propagate = propagate


def _outcome(world: World, ticks: int, broken: str | None) -> Outcome:
    counts = world.trace.counts
    faults = {
        name.removeprefix("fault "): count
        for name, count in sorted(counts.items())
        if name.startswith("fault ")
    }
    answers = {
        f"{kind} {status}": count for (kind, status), count in sorted(world.ledger.answers.items())
    }
    return Outcome(
        seed=world.seed,
        ticks=ticks,
        mix=world.mix,
        digest=world.trace.digest(),
        broken=broken,
        lines=list(world.trace.lines)[-SHOWN_LINES:] if broken else [],
        virtual_seconds=world.loop.time(),
        callbacks=world.loop.callbacks,
        events=world.trace.events,
        commits=world.disk.commits,
        goals=len(world.goals),
        effects=len(world.boundary),
        repeated=world.boundary.repeated,
        compared=world.ledger.checked,
        faults=faults,
        answers=answers,
        properties=world.monitor.reached(),
    )
