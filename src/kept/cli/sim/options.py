"""Options that verbs of `kept sim` have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(
    verbs: Verbs, everywhere: argparse.ArgumentParser, name: str, help: str
) -> argparse.ArgumentParser:
    """A verb. What is not given is left to the defaults of the noun."""
    return verbs.add_parser(
        name,
        help=help,
        parents=[everywhere],
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )


def add_seed(parser: argparse.ArgumentParser, ticks: str) -> None:
    """Which seed, and for how long."""
    unset = argparse.SUPPRESS
    parser.add_argument("--seed", type=int, default=unset, metavar="N", help="which one (1)")
    parser.add_argument("--ticks", type=positive, default=unset, metavar="T", help=ticks)


def add_places(parser: argparse.ArgumentParser) -> None:
    """What becomes of a failure."""
    parser.add_argument(
        "--no-shrink",
        action="store_true",
        default=argparse.SUPPRESS,
        help="leave a plan that fails as it is",
    )
    parser.add_argument(
        "--out",
        type=directory,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="where the plan and the page of a failure go (here)",
    )


def directory(text: str) -> Path:
    """Where files can go; for argparse. Before anything is played for long."""
    path = Path(text)
    there = next((each for each in (path, *path.parents) if each.exists()), path)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is no directory that can be written to")
    return path


def record_file(text: str) -> Path:
    """A file that can be written; for argparse."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file in a directory that is there")
    return path


def positive(text: str) -> int:
    """A whole number above 0; for argparse."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number
