"""Runs the real system in a simulated world, from one seed, with faults.

kept sim run --seed 23496 --ticks 1000      one seed; a tick is a second of virtual time
kept sim --seed 23496 --ticks 1000          the same
kept sim replay plan.json                   a plan, such as a failing seed leaves behind
kept sim shrink --seed 23496 --ticks 1000   the smallest plan that still fails
kept sim soak --for 10m                     many seeds, on all cores
kept sim zoo                                safeguards switched off, and who notices
kept sim report                             RELIABILITY.md, from what was recorded

The same seed gives the same trace; its SHA-256 is printed. A run that breaks prints what broke, the
command that repeats it and a smaller plan, writes a page to look at, and ends with exit code 1.
"""

from __future__ import annotations

import argparse

from kept.cli.sim import report, run, shrink, soak, zoo


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept sim`; without one it runs a seed."""
    run.add_options(parser)
    parser.set_defaults(run=run.run, **run.DEFAULTS)
    verbs = parser.add_subparsers(metavar="VERB", help="run (the default), or one of these:")
    for module in (run, shrink, soak, zoo, report):
        module.add_verbs(verbs, everywhere)
