"""What workers that are up announce: behind `kept worker list`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.output import Row
from kept.cli.session import Session, add_listing, in_session
from kept.protocol.responses import WorkerPage, WorkerRecord
from kept.protocol.worker_requests import WorkerList


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept worker` that are no app."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list workers that are up", parents=[everywhere])
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(WorkerList(rows, cursor), WorkerPage)
        return found.workers, found.cursor

    def row(worker: WorkerRecord) -> Row:
        functions = [f"{each.name}@{each.version}" for each in worker.functions]
        until = session.output.exact(worker.expires_at)
        return (worker.pid, ", ".join(worker.queues), ", ".join(functions), until)

    header = ("WORKER", "QUEUES", "FUNCTIONS", "UNTIL")
    await session.listing(arguments, page, header, row, name=lambda worker: worker.pid)
