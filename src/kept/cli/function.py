"""Functions: which ones the workers that are up announce, and who runs them.

kept function list
kept function show pack
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.output import Row
from kept.cli.session import Session, add_listing, in_session
from kept.protocol.responses import FunctionPage, FunctionRecord, FunctionResult
from kept.protocol.worker_requests import FunctionGet, FunctionList


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept function`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    show = verbs.add_parser("show", help="show who runs a function", parents=[everywhere])
    show.add_argument("name", metavar="NAME", help="without a version")
    show.set_defaults(run=in_session(_show))
    listing = verbs.add_parser("list", help="list what can be run now", parents=[everywhere])
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))


async def _show(session: Session, arguments: argparse.Namespace) -> None:
    found = await session.ask(FunctionGet(arguments.name), FunctionResult)
    fields = [("function", found.function.name)]
    for runner in found.runners:
        until = session.output.exact(runner.expires_at)
        fields.append(
            (f"version {runner.version}", f"{runner.pid} on {runner.queue} until {until}")
        )
    session.show(found, fields)


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(FunctionList(rows, cursor), FunctionPage)
        return found.functions, found.cursor

    def row(function: FunctionRecord) -> Row:
        versions = ", ".join(map(str, function.versions))
        return (function.name, versions, ", ".join(function.queues), str(function.workers))

    header = ("FUNCTION", "VERSIONS", "QUEUES", "WORKERS")
    await session.listing(arguments, page, header, row, name=lambda function: function.name)
