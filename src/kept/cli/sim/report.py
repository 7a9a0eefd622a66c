"""`kept sim report`: RELIABILITY.md, from what was recorded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError, complain
from kept.cli.sim.options import Verbs, add_verb

REPORT: Final = Path("RELIABILITY.md")


def add_verbs(verbs: Verbs, everywhere: argparse.ArgumentParser) -> None:
    """`report`."""
    one = add_verb(verbs, everywhere, "report", "write RELIABILITY.md from what was recorded")
    one.add_argument(
        "--records",
        type=Path,
        default=None,
        metavar="DIR",
        help="where the records are (reliability)",
    )
    one.add_argument(
        "--out", type=Path, default=REPORT, metavar="FILE", help=f"the report ({REPORT})"
    )
    one.add_argument(
        "--check",
        action="store_true",
        default=False,
        help="write nothing; exit code 1 if the report is not what the records make",
    )
    one.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from kept.sim.records import DIRECTORY, RecordError
    from kept.sim.report import report

    directory = arguments.records or DIRECTORY
    if not directory.is_dir():
        raise UsageError(
            f"there is no directory {directory}; say where the records are, --records DIR"
        )
    try:
        text = report(directory)
    except RecordError as error:
        raise UsageError(str(error)) from None
    if arguments.check:
        if arguments.out.is_file() and arguments.out.read_text(encoding="utf-8") == text:
            return EXIT_OK
        complain(f"{arguments.out} is not what the records make; write it with kept sim report")
        return EXIT_REFUSED
    try:
        arguments.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{arguments.out} cannot be written: {error.strerror}") from None
    if not arguments.quiet:
        print(f"wrote {arguments.out}")
    return EXIT_OK
