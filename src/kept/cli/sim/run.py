"""`kept sim run` and `kept sim replay`: one run, and what came of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.sim.options import Verbs, add_places, add_seed, add_verb

if TYPE_CHECKING:  # help is shown without loading the whole system
    from kept.sim.plan import Plan

DEFAULT_TICKS: Final = 1_000
DEFAULTS: Final = {"seed": 1, "ticks": DEFAULT_TICKS, "no_shrink": False, "out": Path()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which seed, for how long, and what becomes of a failure. Defaults are `DEFAULTS`."""
    add_seed(parser, f"seconds of virtual time with faults ({DEFAULT_TICKS:,})")
    add_places(parser)


def add_verbs(verbs: Verbs, everywhere: argparse.ArgumentParser) -> None:
    """`run` and `replay`."""
    one = add_verb(verbs, everywhere, "run", "play a seed")
    add_options(one)
    one.set_defaults(run=run)
    one = add_verb(verbs, everywhere, "replay", "play a plan from a file")
    one.add_argument("plan", metavar="PLAN", type=Path)
    add_places(one)
    one.set_defaults(run=_replay)


def run(arguments: argparse.Namespace) -> int:
    """Plays a seed, and prints what came of it."""
    from kept.sim.plan import draw_plan

    return _play(arguments, draw_plan(arguments.seed, arguments.ticks))


def _replay(arguments: argparse.Namespace) -> int:
    from kept.cli.failure import complain
    from kept.sim.plan import code_digest

    plan = loaded(arguments.plan)
    if plan.code != code_digest():
        complain(f"{arguments.plan} was made with other code; it may play another run here")
    return _play(arguments, plan, arguments.plan)


def loaded(path: Path) -> Plan:
    """The plan of a file, or an error that says what is wrong with it."""
    from kept.sim.plan import PlanError, load_plan

    try:
        return load_plan(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except PlanError as error:
        raise UsageError(f"{path} is no plan: {error}") from None


def _play(arguments: argparse.Namespace, plan: Plan, path: Path | None = None) -> int:
    from kept.cli.sim.findings import Planned, tell_failure
    from kept.cli.sim.words import print_outcome
    from kept.sim.run import play_plan

    outcome = play_plan(plan).outcome
    if arguments.json:
        import msgspec

        print(msgspec.json.encode(outcome).decode())
    elif arguments.quiet:
        print(outcome.digest)
    else:
        print_outcome(outcome)
    if outcome.ok:
        return EXIT_OK
    if not arguments.json:
        shrinks = not arguments.no_shrink
        tell_failure(outcome, Planned(plan, path), arguments.out, shrinks=shrinks)
    return EXIT_REFUSED
