"""Dead letters: work that was given up on, kept until someone looks.

kept dead list --queue mail --since 1d
kept dead show job-17
kept dead replay job-17 job-18
kept dead replay --queue mail --reason exhausted --dry-run
kept dead purge --until 30d --yes
kept dead bulk 5f2a…
kept dead export --prefix mail- --format csv > dead.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from typing import Any, Final

from kept.cli.dead_bulk import (
    add_bulk,
    check_choice,
    confirmed,
    purge_all,
    replay_all,
    show_bulk,
)
from kept.cli.durations import duration
from kept.cli.failure import EXIT_OK, EXIT_REFUSED
from kept.cli.output import Row
from kept.cli.payload import add_payload, payload, readable
from kept.cli.session import Session, add_listing, every_page, in_session
from kept.protocol.limits import MAX_REPLAYS_PER_REQUEST, MAX_SEARCH_ROWS
from kept.protocol.records import DeadLetter
from kept.protocol.requests import DeadGet, DeadList, DeadPurge, DeadReplay
from kept.protocol.responses import (
    BAD_REQUEST,
    DeadLetterPage,
    DeadLetterResult,
    Purge,
    PurgeResult,
    Replay,
    ReplayResult,
)
from kept.protocol.spoken import timestamp

CSV_COLUMNS: Final = (
    *("id", "queue", "function", "reason", "failures", "created", "died", "halted", "replays"),
    *("error", "param", "tags"),
)


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept dead`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list dead letters by id", parents=[everywhere])
    _add_filter(listing)
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))
    for name in ("show", "get"):
        show = verbs.add_parser(name, help="show a dead letter", parents=[everywhere])
        show.add_argument("id", metavar="ID")
        show.set_defaults(run=in_session(_get))
    replay = verbs.add_parser("replay", help="do the work again", parents=[everywhere])
    add_payload(replay, "param")
    replay.set_defaults(run=in_session(_replay))
    purge = verbs.add_parser("purge", help="forget dead letters", parents=[everywhere])
    purge.set_defaults(run=in_session(_purge))
    for verb in (replay, purge):
        verb.add_argument("ids", nargs="*", metavar="ID")
        _add_filter(verb)
        add_bulk(verb)
    bulk = verbs.add_parser(
        "bulk", help="show how far a replay or purge by filter is", parents=[everywhere]
    )
    bulk.add_argument(
        "id", metavar="ID", help="as --json prints it, and a replay or purge that is interrupted"
    )
    bulk.set_defaults(run=in_session(show_bulk))
    export = verbs.add_parser("export", help="all fields of all of them", parents=[everywhere])
    _add_filter(export)
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    export.set_defaults(run=in_session(_export))


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", metavar="NAME")
    parser.add_argument("--function", metavar="NAME@VERSION")
    parser.add_argument("--reason", metavar="REASON", help="for instance exhausted, lease_expired")
    parser.add_argument(
        "--since", type=duration, metavar="DURATION", help="died at most so long ago"
    )
    parser.add_argument(
        "--until", type=duration, metavar="DURATION", help="died at least so long ago"
    )
    parser.add_argument("--prefix", metavar="TEXT", help="whose ids begin with TEXT")


def _request(
    session: Session, arguments: argparse.Namespace, rows: int, cursor: str | None
) -> DeadList:
    return DeadList(
        arguments.queue,
        arguments.function,
        arguments.reason,
        session.ago(arguments.since),
        session.ago(arguments.until),
        rows,
        cursor,
        arguments.prefix,
    )


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(_request(session, arguments, rows, cursor), DeadLetterPage)
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


async def _export(session: Session, arguments: argparse.Namespace) -> None:
    """JSON lines, or CSV with a header, whatever else was asked for."""

    async def page(cursor: str | None) -> tuple[Sequence[Any], str | None]:
        request = _request(session, arguments, MAX_SEARCH_ROWS, cursor)
        found = await session.ask(request, DeadLetterPage)
        return found.letters, found.cursor

    table = csv.writer(sys.stdout, lineterminator="\n")
    if arguments.format == "csv":
        table.writerow(CSV_COLUMNS)
    async for letter in every_page(page):
        if arguments.format == "csv":
            table.writerow([_cell(text) for text in _columns(letter)])
        else:
            session.output.document(letter)


def _columns(letter: DeadLetter) -> tuple[str, ...]:
    return (
        letter.id,
        letter.queue or "",
        letter.function or "",
        letter.reason,
        str(letter.failures),
        timestamp(letter.created_at),
        timestamp(letter.died_at),
        "yes" if letter.halted else "no",
        str(letter.replays),
        readable(letter.error),
        readable(letter.param),
        " ".join(f"{name}={text}" for name, text in sorted(letter.tags.items())),
    )


def _cell(text: str) -> str:
    """A spreadsheet must not take a payload for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


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
    check_choice(arguments)
    param = None if arguments.param is None else payload(arguments.param, raw=arguments.raw)
    if not arguments.ids:
        return await replay_all(session, arguments, param)
    if not arguments.dry_run and not confirmed(session, arguments, len(arguments.ids), "replay"):
        return EXIT_REFUSED
    verb = "would run" if arguments.dry_run else "runs"
    refused = False
    for ids in _parts(arguments.ids):
        request = DeadReplay(ids, param, dry_run=arguments.dry_run)
        for replay in (await session.ask(request, ReplayResult)).replays:
            text = f"{replay.id} {verb} again as {replay.replayed_as or replay.id}"
            refused = _tell(session, replay, text) or refused
    return EXIT_REFUSED if refused else EXIT_OK


async def _purge(session: Session, arguments: argparse.Namespace) -> int:
    check_choice(arguments)
    if not arguments.ids:
        return await purge_all(session, arguments)
    if not arguments.dry_run and not confirmed(session, arguments, len(arguments.ids), "purge"):
        return EXIT_REFUSED
    verb = "would be purged" if arguments.dry_run else "purged"
    refused = False
    for ids in _parts(arguments.ids):
        request = DeadPurge(ids, dry_run=arguments.dry_run)
        for purge in (await session.ask(request, PurgeResult)).purges:
            refused = _tell(session, purge, f"{purge.id} {verb}") or refused
    return EXIT_REFUSED if refused else EXIT_OK


def _parts(ids: list[str]) -> list[list[str]]:
    size = MAX_REPLAYS_PER_REQUEST
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _tell(session: Session, outcome: Replay | Purge, text: str) -> bool:
    """Says what became of one letter; answers whether it was refused."""
    if outcome.status < BAD_REQUEST:
        session.done(text, outcome)
        return False
    session.output.note(f"kept: {outcome.id}: {outcome.error or outcome.status}")
    if session.output.json:
        session.output.document(outcome)
    return True
