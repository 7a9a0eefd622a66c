"""`kept sim shrink`: the smallest plan that still fails in the same way."""

from __future__ import annotations

import argparse
from pathlib import Path

from kept.cli.durations import duration
from kept.cli.failure import EXIT_OK, EXIT_REFUSED
from kept.cli.sim.options import Verbs, add_places, add_seed, add_verb, positive
from kept.cli.sim.run import DEFAULT_TICKS, loaded


def add_verbs(verbs: Verbs, everywhere: argparse.ArgumentParser) -> None:
    """`shrink`."""
    one = add_verb(verbs, everywhere, "shrink", "make a plan that fails as small as it gets")
    one.add_argument("plan", metavar="PLAN", type=Path, nargs="?", default=None)
    add_seed(one, f"of a seed: seconds of virtual time with faults ({DEFAULT_TICKS:,})")
    add_places(one)
    one.add_argument("--runs", type=positive, default=None, metavar="N", help="at most so many")
    one.add_argument(
        "--for", dest="limit", type=duration, default=None, metavar="TIME", help="such as 10m"
    )
    one.set_defaults(run=_shrink)


def _shrink(arguments: argparse.Namespace) -> int:
    from kept.cli.sim.findings import Planned, shrunk, write_page
    from kept.sim.plan import draw_plan
    from kept.sim.shrink import DEFAULT_RUNS, DEFAULT_SECONDS

    path = arguments.plan
    plan = loaded(path) if path else draw_plan(arguments.seed, arguments.ticks)
    found = shrunk(
        Planned(plan, path),
        arguments.out,
        runs=arguments.runs or DEFAULT_RUNS,
        seconds=arguments.limit / 1_000 if arguments.limit else DEFAULT_SECONDS,
    )
    if found is None:
        return EXIT_OK
    write_page(found, arguments.out)
    return EXIT_REFUSED
