"""Revision guards: the highest revision that each entity had.

kept guard list --prefix customer-
kept guard show customer-7
kept guard forget customer-7
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.output import Row
from kept.cli.session import Session, add_listing, in_session
from kept.protocol.guard_requests import GuardDelete, GuardGet, GuardSearch
from kept.protocol.responses import GuardPage, GuardRecord, GuardResult, Nothing


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept guard`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list guards by entity", parents=[everywhere])
    listing.add_argument("--prefix", metavar="TEXT", help="those only that start with it")
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))
    for verb, text, command in (
        ("show", "show the revision of an entity", _show),
        ("forget", "accept any revision of an entity again", _forget),
    ):
        one = verbs.add_parser(verb, help=text, parents=[everywhere])
        one.add_argument("key", metavar="ENTITY")
        one.set_defaults(run=in_session(command))


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(GuardSearch(arguments.prefix, rows, cursor), GuardPage)
        return found.guards, found.cursor

    def row(guard: GuardRecord) -> Row:
        return (guard.key, str(guard.current), session.output.instant(guard.expires_at))

    header = ("ENTITY", "REVISION", "FORGOTTEN")
    await session.listing(arguments, page, header, row, lambda guard: guard.key)


async def _show(session: Session, arguments: argparse.Namespace) -> None:
    guard = (await session.ask(GuardGet(arguments.key), GuardResult)).guard
    fields = [
        ("entity", guard.key),
        ("revision", str(guard.current)),
        ("forgotten", session.output.exact(guard.expires_at)),
    ]
    session.show(guard, fields)


async def _forget(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(GuardDelete(arguments.key), Nothing)
    session.done(f"{arguments.key} forgotten", {"key": arguments.key, "forgotten": True})
