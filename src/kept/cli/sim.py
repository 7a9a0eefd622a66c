"""Runs the real system in a simulated world, from one seed, with faults.

kept sim run --seed 23496 --ticks 1000    one seed; a tick is a second of virtual time
kept sim --seed 23496 --ticks 1000        the same
kept sim soak --seeds 1000                many seeds, on all cores
kept sim zoo --bug fulfil-unfenced        a safeguard switched off: in how many seeds it is missed

The same seed gives the same trace; its SHA-256 is printed. A run that breaks prints what broke and
the command that repeats it, and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kept.cli import sim_zoo
from kept.cli.failure import EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:  # help is shown without loading the whole system
    from kept.sim.run import Outcome
    from kept.sim.soak import Tally

DEFAULT_TICKS: Final = 1_000
DEFAULT_SOAK_TICKS: Final = 150
DEFAULT_SEEDS: Final = 100


def add_arguments(parser: argparse.ArgumentParser, _everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept sim`; without one it runs a seed."""
    parser.add_argument(
        "verb", nargs="?", choices=("run", "soak", "zoo"), default="run", help="default: run"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the seed, or the first one of a soak (1)"
    )
    parser.add_argument("--seeds", type=_positive, help="soak and zoo: how many")
    parser.add_argument(
        "--ticks",
        type=_positive,
        help="seconds of virtual time with faults "
        f"(run: {DEFAULT_TICKS:,}, soak: {DEFAULT_SOAK_TICKS})",
    )
    parser.add_argument("--processes", type=_positive, help="soak: how many at once (all cores)")
    sim_zoo.add_options(parser)
    parser.set_defaults(run=_simulate)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _simulate(arguments: argparse.Namespace) -> int:
    if arguments.verb == "zoo":
        return sim_zoo.run(arguments, arguments.seeds, arguments.ticks)
    return _run(arguments) if arguments.verb == "run" else _soak(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from kept.sim.run import run_seed

    outcome = run_seed(arguments.seed, arguments.ticks or DEFAULT_TICKS)
    if arguments.json:
        import msgspec

        print(msgspec.json.encode(outcome).decode())
    else:
        _print_outcome(outcome)
    return EXIT_OK if outcome.ok else EXIT_REFUSED


def _print_outcome(outcome: Outcome) -> None:
    mix = outcome.mix
    print(f"seed {outcome.seed}, {outcome.ticks} ticks: {_verdict(outcome)}")
    print(f"world     {mix.servers} servers, {mix.workers} workers, {mix.clients} clients")
    print(f"          on {mix.store}, leases of {mix.lease_seconds:g} s")
    print(f"virtual   {outcome.virtual_seconds:,.0f} s in {outcome.callbacks:,} callbacks")
    print(f"events    {outcome.events:,} in the trace, {outcome.commits:,} commits")
    print(f"work      {outcome.goals:,} workflows and jobs, {outcome.effects:,} effects,")
    print(f"          {outcome.repeated:,} of them tried again")
    print(f"checked   {sum(outcome.properties.values()):,} property evaluations,")
    print(f"          {outcome.compared:,} answers held against earlier ones")
    print(f"answers   {_joined(_by_kind(outcome.answers).items())}")
    print(f"faults    {_joined(outcome.faults.items()) or 'none'}")
    print(f"trace     {outcome.digest}")
    if not outcome.ok:
        _explain(outcome)


def _verdict(outcome: Outcome) -> str:
    return "everything held" if outcome.ok else "BROKEN"


def _explain(outcome: Outcome) -> None:
    print("\nthe last events:")
    for line in outcome.lines:
        print(f"  {line}")
    print(f"\nbroken    {outcome.broken}")
    print(f"repeat    kept sim run --seed {outcome.seed} --ticks {outcome.ticks}")


def _by_kind(answers: dict[str, int]) -> dict[str, int]:
    """How often each kind succeeded."""
    counts: dict[str, int] = {}
    for answer, count in answers.items():
        kind, status = answer.split()
        if int(status) < 400:
            counts[kind] = counts.get(kind, 0) + count
    return counts


def _joined(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


def _soak(arguments: argparse.Namespace) -> int:
    from kept.sim.soak import Tally, soak

    ticks = arguments.ticks or DEFAULT_SOAK_TICKS
    seeds = range(arguments.seed, arguments.seed + (arguments.seeds or DEFAULT_SEEDS))
    tally = Tally()
    on_terminal = sys.stderr.isatty()
    for outcome in soak(seeds, ticks, arguments.processes):
        tally.add(outcome)
        if not outcome.ok and not arguments.json:
            print(f"seed {outcome.seed} broke: {outcome.broken}")
            print(f"  kept sim run --seed {outcome.seed} --ticks {outcome.ticks}")
        if on_terminal:
            sys.stderr.write(f"\r{tally.runs} of {len(seeds)} seeds ")
    if on_terminal:
        sys.stderr.write("\r")
    if arguments.json:
        print(json.dumps({"runs": tally.runs, "failed": sorted(tally.failed)} | _sums(tally)))
    else:
        _print_tally(tally, ticks)
    return EXIT_REFUSED if tally.failed else EXIT_OK


def _sums(tally: Tally) -> dict[str, object]:
    return {
        "callbacks": tally.callbacks,
        "events": tally.events,
        "commits": tally.commits,
        "goals": tally.goals,
        "compared": tally.compared,
        "evaluated": tally.properties.total(),
        "faults": dict(sorted(tally.faults.items())),
        "answers": dict(sorted(tally.answers.items())),
    }


def _print_tally(tally: Tally, ticks: int) -> None:
    print(f"{tally.runs:,} seeds of {ticks} ticks, {len(tally.failed):,} broke")
    print(f"events    {tally.events:,} in {tally.callbacks:,} callbacks, {tally.commits:,} commits")
    print(f"work      {tally.goals:,} workflows and jobs")
    print(f"checked   {tally.properties.total():,} property evaluations,")
    print(f"          {tally.compared:,} answers held against earlier ones")
    print(f"answers   {_joined(sorted(_by_kind(tally.answers).items()))}")
    print(f"faults    {_joined(sorted(tally.faults.items())) or 'none'}")
    if tally.failed:
        print(f"seeds     {' '.join(map(str, sorted(tally.failed)))}")
