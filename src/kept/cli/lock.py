"""Locks: who holds what, and until when.

kept lock list --prefix customer-
kept lock show customer-7
kept lock release customer-7
kept lock run customer-7 --ttl 30s -- rsync -a here there
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.failure import EXIT_OK, EXIT_REFUSED
from kept.cli.holding import FENCE_VARIABLE, add_run, run_holding
from kept.cli.output import Row
from kept.cli.session import Session, add_listing, in_session
from kept.protocol.guard_requests import LockAcquire, LockGet, LockRelease, LockSearch
from kept.protocol.responses import LockPage, LockRecord, LockResult, Nothing


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept lock`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list locks by name", parents=[everywhere])
    listing.add_argument("--prefix", metavar="TEXT", help="those only that start with it")
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))
    show = verbs.add_parser("show", help="show a lock", parents=[everywhere])
    show.add_argument("resource", metavar="NAME")
    show.set_defaults(run=in_session(_show))
    release = verbs.add_parser(
        "release",
        help="take a lock from its holder",
        description="Takes a lock from its holder, which learns of it by its next heartbeat and "
        "may go on until then: the fence is what keeps it from doing harm.",
        parents=[everywhere],
    )
    release.add_argument("resource", metavar="NAME")
    release.set_defaults(run=in_session(_release))
    run = add_run(
        verbs,
        everywhere,
        "lock",
        f"The command finds its fence in {FENCE_VARIABLE}: a number above that of every earlier holder.",
    )
    run.set_defaults(run=in_session(_run))


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(LockSearch(arguments.prefix, rows, cursor), LockPage)
        return found.locks, found.cursor

    def row(lock: LockRecord) -> Row:
        return (
            lock.resource,
            lock.holder or "",
            "" if lock.expires_at is None else session.output.instant(lock.expires_at),
            str(lock.waiting),
            str(lock.fence),
        )

    header = ("NAME", "HOLDER", "EXPIRES", "WAITING", "FENCE")
    await session.listing(arguments, page, header, row, lambda lock: lock.resource)


async def _show(session: Session, arguments: argparse.Namespace) -> None:
    lock = (await session.ask(LockGet(arguments.resource), LockResult)).lock
    fields = [("name", lock.resource), ("held", "no" if lock.holder is None else "yes")]
    if lock.holder is not None and lock.expires_at is not None:
        fields += [
            ("holder", lock.holder),
            ("expires", session.output.exact(lock.expires_at)),
        ]
    fields += [("waiting", str(lock.waiting)), ("fence", str(lock.fence))]
    session.show(lock, fields)


async def _release(session: Session, arguments: argparse.Namespace) -> int:
    lock = (await session.ask(LockGet(arguments.resource), LockResult)).lock
    if lock.holder is None:
        session.output.note(f"{lock.resource} is held by nobody")
        return EXIT_REFUSED
    await session.ask(LockRelease(lock.resource, lock.holder, lock.fence), Nothing)
    text = f"{lock.resource} released, {lock.holder} had it"
    session.done(text, {"resource": lock.resource, "released": True})
    return EXIT_OK


async def _run(session: Session, arguments: argparse.Namespace) -> int:
    return await run_holding(session, arguments, LockAcquire(arguments.key, "", arguments.ttl))
