"""The ledger: what was done once, and is recorded for which key.

kept once list
kept once show charge-42
kept once run report-2026-11 -- ./report --month 2026-11
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.once_run import add_run
from kept.cli.output import Row
from kept.cli.session import Session, add_listing, in_session
from kept.errors import NotFoundError
from kept.protocol import tags as tag
from kept.protocol.records import PromiseRecord, PromiseState
from kept.protocol.requests import PromiseSearch, TaskGet
from kept.protocol.responses import PromisePage, TaskResult
from kept.sdk.ledger import LEDGER_TAGS


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept once`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list calls by key", parents=[everywhere])
    listing.add_argument(
        "--pending", action="store_true", help="those only that have no result recorded"
    )
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))
    show = verbs.add_parser("show", help="show the calls of a key", parents=[everywhere])
    show.add_argument("key", metavar="KEY")
    show.set_defaults(run=in_session(_show))
    add_run(verbs, everywhere)


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        state = PromiseState.PENDING if arguments.pending else None
        found = await session.ask(PromiseSearch(state, LEDGER_TAGS, rows, cursor), PromisePage)
        return found.promises, found.cursor

    def row(promise: PromiseRecord) -> Row:
        return (key_of(promise), promise.state, session.output.instant(promise.created_at))

    await session.listing(arguments, page, ("KEY", "STATE", "CREATED"), row, key_of)


async def _show(session: Session, arguments: argparse.Namespace) -> None:
    tags = {**LEDGER_TAGS, tag.DEDUPE: arguments.key}
    found = (await session.ask(PromiseSearch(None, tags), PromisePage)).promises
    if not found:
        raise NotFoundError(f"nothing was done once under the key {arguments.key}")
    # The latest stands for the key, or did when its window ended.
    promise = max(found, key=lambda each: each.created_at)
    fields = [
        ("key", key_of(promise)),
        ("idempotency key", promise.id),
        ("state", promise.state),
        ("first call", session.output.exact(promise.created_at)),
    ]
    if promise.settled_at is None:
        task = (await session.ask(TaskGet(promise.id), TaskResult)).task
        fields.append(("running", "no" if task.pid is None else "yes"))
        fields.append(("runs so far", str(task.version)))
    else:
        fields.append(("recorded", session.output.exact(promise.settled_at)))
        fields.append(("result", promise.value.data or ""))
    session.show(promise, fields)


def key_of(promise: PromiseRecord) -> str:
    """The key that a record of the ledger is found by."""
    return promise.tags.get(tag.DEDUPE, promise.id)
