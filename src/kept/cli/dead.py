"""Dead letters: work that was given up on, kept until someone looks.

kept dead list --queue mail --since 1d
kept dead get job-17
kept dead replay job-17 job-18
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.durations import duration
from kept.cli.failure import EXIT_OK, EXIT_REFUSED
from kept.cli.output import Row
from kept.cli.payload import add_payload, payload, readable
from kept.cli.session import Session, add_listing, in_session
from kept.protocol.limits import MAX_REPLAYS_PER_REQUEST
from kept.protocol.records import DeadLetter
from kept.protocol.requests import DeadGet, DeadList, DeadReplay
from kept.protocol.responses import (
    BAD_REQUEST,
    DeadLetterPage,
    DeadLetterResult,
    ReplayResult,
)


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept dead`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list dead letters by id", parents=[everywhere])
    listing.add_argument("--queue", metavar="NAME")
    listing.add_argument("--function", metavar="NAME@VERSION")
    listing.add_argument("--reason", metavar="REASON", help="for instance exhausted, lease_expired")
    listing.add_argument(
        "--since", type=duration, metavar="DURATION", help="died at most so long ago"
    )
    listing.add_argument(
        "--until", type=duration, metavar="DURATION", help="died at least so long ago"
    )
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))
    get = verbs.add_parser("get", help="show a dead letter", parents=[everywhere])
    get.add_argument("id", metavar="ID")
    get.set_defaults(run=in_session(_get))
    replay = verbs.add_parser("replay", help="do the work again", parents=[everywhere])
    replay.add_argument("ids", nargs="+", metavar="ID")
    add_payload(replay, "param")
    replay.set_defaults(run=in_session(_replay))


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    def ago(length_ms: int | None) -> int | None:
        return None if length_ms is None else max(0, session.now_ms - length_ms)

    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        request = DeadList(
            arguments.queue,
            arguments.function,
            arguments.reason,
            ago(arguments.since),
            ago(arguments.until),
            rows,
            cursor,
        )
        found = await session.ask(request, DeadLetterPage)
        return found.letters, found.cursor

    def row(letter: DeadLetter) -> Row:
        return (
            letter.id,
            letter.reason,
            str(letter.failures),
            session.output.instant(letter.died_at),
            letter.queue or "",
            letter.function or "",
        )

    header = ("ID", "REASON", "FAILURES", "DIED", "QUEUE", "FUNCTION")
    await session.listing(arguments, page, header, row)


async def _get(session: Session, arguments: argparse.Namespace) -> None:
    letter = (await session.ask(DeadGet(arguments.id), DeadLetterResult)).letter
    fields = [
        ("id", letter.id),
        ("reason", letter.reason),
        ("error", readable(letter.error)),
        ("failures", str(letter.failures)),
        ("queue", letter.queue or ""),
        ("function", letter.function or ""),
        ("created", session.output.exact(letter.created_at)),
        ("died", session.output.exact(letter.died_at)),
        ("halted", "yes" if letter.halted else "no"),
        ("replays", str(letter.replays)),
        ("param", readable(letter.param)),
    ]
    fields += [("tag", f"{name}={text}") for name, text in sorted(letter.tags.items())]
    session.show(letter, fields)


async def _replay(session: Session, arguments: argparse.Namespace) -> int:
    param = None if arguments.param is None else payload(arguments.param, raw=arguments.raw)
    refused = False
    for start in range(0, len(arguments.ids), MAX_REPLAYS_PER_REQUEST):
        ids = arguments.ids[start : start + MAX_REPLAYS_PER_REQUEST]
        for replay in (await session.ask(DeadReplay(ids, param), ReplayResult)).replays:
            if replay.status >= BAD_REQUEST:
                refused = True
                session.output.note(f"kept: {replay.id}: {replay.error or replay.status}")
                if session.output.json:
                    session.output.document(replay)
            else:
                session.done(f"{replay.id} runs again as {replay.replayed_as or replay.id}", replay)
    return EXIT_REFUSED if refused else EXIT_OK
