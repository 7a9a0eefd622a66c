"""Many dead letters at once: counted first, done in the background, asked about above a handful."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.session import Session
from kept.protocol.entries import LetterFilter
from kept.protocol.records import Value
from kept.protocol.requests import DeadBulk, DeadPurge, DeadReplay
from kept.protocol.responses import BulkRecord, BulkResult, PurgeResult, ReplayResult

# More than so many are not touched without a yes.
ASKED_ABOVE: Final = 10
POLL_SECONDS: Final = 0.05
FILTERS: Final = ("queue", "function", "reason", "since", "until", "prefix")


def add_bulk(parser: argparse.ArgumentParser) -> None:
    """The options of what is done with many."""
    parser.add_argument("--all", action="store_true", help="every dead letter there is")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, no more")
    parser.add_argument(
        "--yes", action="store_true", help=f"do not ask, also above {ASKED_ABOVE} of them"
    )


async def replay_all(session: Session, arguments: argparse.Namespace, param: Value | None) -> int:
    """Replays what the filter matches."""
    wanted = _filter(session, arguments)

    async def begin(*, dry_run: bool) -> BulkRecord | None:
        bulk = session.runtime.entropy(16).hex()
        request = DeadReplay([], param, wanted, dry_run, bulk)
        return (await session.ask(request, ReplayResult)).bulk

    count = await _run(session, await begin(dry_run=True))
    if not _may(session, arguments, count, "replay"):
        return EXIT_OK if arguments.dry_run else EXIT_REFUSED
    return _told(session, await _run(session, await begin(dry_run=False)), "replayed")


async def purge_all(session: Session, arguments: argparse.Namespace) -> int:
    """Purges what the filter matches."""
    wanted = _filter(session, arguments)

    async def begin(*, dry_run: bool) -> BulkRecord | None:
        request = DeadPurge([], wanted, dry_run, session.runtime.entropy(16).hex())
        return (await session.ask(request, PurgeResult)).bulk

    count = await _run(session, await begin(dry_run=True))
    if not _may(session, arguments, count, "purge"):
        return EXIT_OK if arguments.dry_run else EXIT_REFUSED
    return _told(session, await _run(session, await begin(dry_run=False)), "purged")


def check_choice(arguments: argparse.Namespace) -> None:
    """Letters are named in one way: none is silently left out of, or added to, what is done."""
    filtered = any(getattr(arguments, name) is not None for name in FILTERS)
    if bool(arguments.ids) + filtered + arguments.all != 1:
        raise UsageError("name dead letters by ID, by a filter such as --queue, or with --all")


def _filter(session: Session, arguments: argparse.Namespace) -> LetterFilter:
    return LetterFilter(
        arguments.queue,
        arguments.function,
        arguments.reason,
        session.ago(arguments.since),
        session.ago(arguments.until),
        arguments.prefix,
    )


async def _run(session: Session, bulk: BulkRecord | None) -> BulkRecord:
    """Waits for an operation. It goes on by itself where this is interrupted."""
    assert bulk is not None
    try:
        while bulk.finished_at is None:
            await session.runtime.sleep(POLL_SECONDS)
            bulk = (await session.ask(DeadBulk(bulk.id), BulkResult)).bulk
    except BaseException:
        if not bulk.dry_run:
            session.output.note(f"kept: it goes on; `kept dead bulk {bulk.id}` says how far it is")
        raise
    return bulk


async def show_bulk(session: Session, arguments: argparse.Namespace) -> None:
    """`kept dead bulk`: an operation that was begun, for 7 days after its end."""
    bulk = (await session.ask(DeadBulk(arguments.id), BulkResult)).bulk
    letters = [
        ("queue", bulk.filter.queue or ""),
        ("function", bulk.filter.function or ""),
        ("reason", bulk.filter.reason or ""),
        ("since", session.output.exact(bulk.filter.since)),
        ("until", session.output.exact(bulk.filter.until)),
        ("prefix", bulk.filter.prefix or ""),
    ]
    finished = session.output.exact(bulk.finished_at)
    fields = [
        ("id", bulk.id),
        ("action", bulk.action + (", a dry run" if bulk.dry_run else "")),
        *letters,
        ("started", session.output.exact(bulk.started_at)),
        ("finished", finished or "not yet"),
        ("done", str(bulk.done)),
        ("failed", str(bulk.failed)),
    ]
    session.show(bulk, fields)


def _may(session: Session, arguments: argparse.Namespace, count: BulkRecord, verb: str) -> bool:
    """Says what would be done, and asks where that is much."""
    text = f"would {verb} {count.done}"
    if count.failed:
        text += f", and could not {verb} {count.failed}"
    if arguments.dry_run:
        session.done(text, count)
        return False
    if count.done > ASKED_ABOVE and not arguments.yes:
        session.output.note(text)
    return confirmed(session, arguments, count.done, verb)


def confirmed(session: Session, arguments: argparse.Namespace, count: int, verb: str) -> bool:
    """Asks before that many are touched, where they are many and there is somebody to ask."""
    if count <= ASKED_ABOVE or arguments.yes:
        return True
    if not sys.stdin.isatty():
        session.output.note(f"kept: add --yes to {verb} more than {ASKED_ABOVE} dead letters")
        return False
    print(f"{verb} {count} dead letters? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _told(session: Session, bulk: BulkRecord, done: str) -> int:
    session.done(f"{done} {bulk.done}" + (f", failed {bulk.failed}" if bulk.failed else ""), bulk)
    return EXIT_REFUSED if bulk.failed else EXIT_OK
