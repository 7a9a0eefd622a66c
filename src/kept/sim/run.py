"""One seed from its first instant to its verdict."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final, NamedTuple

import msgspec

from kept.check.history import History
from kept.check.incident import Breakage
from kept.errors import KeptError
from kept.sim.bounds import bounded
from kept.sim.breakage import Broken, breakage_of
from kept.sim.faults import Faults
from kept.sim.guards import GUARD_KINDS
from kept.sim.judgement import Judgement, judge
from kept.sim.loop import SimulatedLoop, SimulationStuckError
from kept.sim.mix import Mix
from kept.sim.plan import Plan, draw_plan
from kept.sim.planners import PLANNED_KINDS
from kept.sim.process import Process
from kept.sim.requests import RAW_KINDS
from kept.sim.runtime import EPOCH_MS
from kept.sim.scripts import playable
from kept.sim.trace import BROKEN, FAULT, KEPT_EVENTS, Event, telling
from kept.sim.world import Complaints, World

# From so many ticks on, every kind must have succeeded and every fault must have struck.
GATED_TICKS: Final = 300
# Where the bounds are so small, or so much goes wrong, that fewer came, kinds are left out by chance.
GATED_ANSWERS: Final = 1_500
# There are many of them, and a single client that crashes again and again plays few.
GATED_TICKS_OF_SCRIPTS: Final = 900
SHOWN_LINES: Final = 40
EMPTY_PASS: Final = "no empty pass"
# The oracle of whole histories.
LINEARIZABLE: Final = "linearizable"


class Outcome(msgspec.Struct, kw_only=True):
    """What a run came to. `broken` is None, or what broke; `digest` is the trace's SHA-256."""

    seed: int
    ticks: int
    mix: Mix
    digest: str
    broken: str | None
    breakage: Breakage | None
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
    judgement: Judgement

    @property
    def ok(self) -> bool:
        return self.broken is None


class Played(NamedTuple):
    """What a run came to, and the world after its end: to be looked at."""

    outcome: Outcome
    world: World

    @property
    def history(self) -> History:
        """What was asked and answered."""
        return self.world.recording.history()


def run_seed(seed: int, ticks: int, mix: Mix | None = None) -> Outcome:
    """Plays a seed for so many ticks (virtual seconds) with faults, then until all has settled."""
    return play_plan(draw_plan(seed, ticks, mix)).outcome


def play_plan(plan: Plan, kept_events: int | None = KEPT_EVENTS) -> Played:
    """Plays a plan. Its world keeps so many events of its trace, None all."""
    kernel = Process("kernel")
    loop = SimulatedLoop(Random(f"{plan.seed}/order"), kernel, shuffled=plan.mix.shuffled)
    with _undisturbed(), bounded(plan.mix.bounds):
        world = World(plan, loop, kept_events)
        complaints = Complaints(world.ledger.break_off)
        with _heard(complaints):
            try:
                error = _play(world)
            finally:
                # Also where somebody interrupts it: what is left to the collector would be loud.
                for machine in world.machines.values():
                    if machine.process is not None:
                        machine.process.kill()
                kernel.kill()
                world.disk.close()
                loop.close()
    judgement = judge(world.recording.history())
    if error is None and judgement.violation is not None:
        error = Broken(LINEARIZABLE, judgement.violation)
        at = max(0.0, (judgement.violated_at - EPOCH_MS) / 1_000)
        world.trace.broken = Event(at, BROKEN, judgement.violated_by, judgement.violation)
    return Played(_outcome(world, error, judgement), world)


def _play(world: World) -> Exception | None:
    try:
        world.loop.run_until_complete(_acts(world))
    except (AssertionError, SimulationStuckError, KeptError) as error:
        return error
    return None


async def _acts(world: World) -> None:
    faults = Faults(world)
    world.start_all()
    faults.start()
    await world.run(world.plan.ticks)
    faults.stop()
    world.busy = False
    await world.settle()
    await world.stop_all()
    _require_all(world)


def _require_all(world: World) -> None:
    """The gate against empty passes. A plan from which something was taken away may be emptier."""
    if world.plan.ticks < GATED_TICKS or not world.plan.whole:
        return
    kinds = (*RAW_KINDS, *GUARD_KINDS, *(PLANNED_KINDS if world.mix.plans else ()))
    missing = [kind for kind in kinds if not world.ledger.succeeded[kind]]
    if missing and world.ledger.answers.total() >= GATED_ANSWERS:
        raise Broken(EMPTY_PASS, f"these kinds never succeeded: {', '.join(missing)}")
    struck = world.trace.counts
    unplayed = [name for name in playable(world.mix) if not struck[f"script {name}"]]
    if unplayed and world.plan.ticks >= GATED_TICKS_OF_SCRIPTS:
        raise Broken(EMPTY_PASS, f"these scripts were never played: {', '.join(unplayed)}")
    if not world.deliveries.executes or not world.deliveries.unblocks:
        raise Broken(EMPTY_PASS, "no execute or no unblock was delivered")
    idle = [fault for fault in world.mix.faults if not struck[f"{FAULT}{fault}"]]
    if idle:
        raise Broken(EMPTY_PASS, f"these faults never struck: {', '.join(idle)}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The garbage collector runs when it likes, and what it frees runs code: not during a play.

    What was there before is set aside: what a play leaves is soon found without looking at that. But
    the world of the play before, which is of use to nobody now, would be set aside with it.
    """
    enabled = gc.isenabled()
    gc.disable()
    gc.collect()
    gc.freeze()
    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        with warnings.catch_warnings():
            # Of coroutines that a dead process had made and not begun.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            try:
                yield
            finally:
                gc.collect()
    finally:
        gc.unfreeze()
        sys.unraisablehook = hook
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


def shown_lines(world: World, breakage: Breakage | None, most: int) -> list[str]:
    """What is shown of a trace: what names the records that are broken, and what came last before it
    was noticed."""
    events = list(world.trace.events)
    if world.trace.broken in events:
        events = events[: events.index(world.trace.broken) + 1]
    processes = {event.who for event in events}
    about = breakage.named - processes if breakage is not None else ()
    return [str(event) for event in telling(events, about, most)]


def _outcome(world: World, error: Exception | None, judgement: Judgement) -> Outcome:
    breakage = None
    if error is not None:
        first = world.trace.broken
        at, process = (first.at, first.who) if first else (world.loop.time(), "")
        breakage = breakage_of(error, at, process, world.disk.broken)
    counts = world.trace.counts
    faults = {
        name.removeprefix(FAULT): count
        for name, count in sorted(counts.items())
        if name.startswith(FAULT)
    }
    answers = {
        f"{kind} {status}": count for (kind, status), count in sorted(world.ledger.answers.items())
    }
    return Outcome(
        seed=world.seed,
        ticks=world.plan.ticks,
        mix=world.mix,
        digest=world.trace.digest(),
        broken=f"{type(error).__name__}: {error}" if error else None,
        breakage=breakage,
        lines=shown_lines(world, breakage, SHOWN_LINES) if breakage else [],
        virtual_seconds=world.loop.time(),
        callbacks=world.loop.callbacks,
        events=world.trace.counts.total(),
        commits=world.disk.commits,
        goals=len(world.goals),
        effects=len(world.boundary),
        repeated=world.boundary.repeated,
        compared=world.ledger.checked,
        faults=faults,
        answers=answers,
        properties=world.monitor.reached(),
        judgement=judgement,
    )
