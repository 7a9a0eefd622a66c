"""`kept schedule put`, `pause`, `resume`, `trigger`, `backfill` (protocol B10)."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any, Final

from kept.cli.durations import deadline, duration
from kept.cli.payload import add_payload, payload
from kept.cli.schedule_details import details
from kept.cli.session import Session, in_session, tag_pairs
from kept.protocol import schedule_requests as s
from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import Catchup, Overlap
from kept.protocol.requests import Request
from kept.protocol.responses import PromiseResult, ScheduleResult

DEFAULT_PROMISE_ID: Final = "{{.id}}.{{.timestamp}}"


def add_changes(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """The verbs that go beyond create, get, list and delete."""
    put = verbs.add_parser(
        "put", help="create a schedule, or change it; its clock goes on", parents=[everywhere]
    )
    put.add_argument("id", metavar="ID")
    put.add_argument("cron", metavar="CRON", nargs="?", help="five fields, or six with seconds")
    put.add_argument("--every", type=duration, metavar="DURATION", help="instead of CRON")
    put.add_argument("--zone", metavar="ZONE", help="whose clocks, such as Europe/Berlin (UTC)")
    put.add_argument("--jitter", type=duration, default=0, metavar="DURATION")
    put.add_argument("--overlap", choices=[o.value for o in Overlap], default=Overlap.ALLOW.value)
    put.add_argument("--catchup", choices=[c.value for c in Catchup], default=Catchup.ALL.value)
    put.add_argument("--paused", action="store_true", default=None, help="do not fire for now")
    put.add_argument(
        "--promise-id",
        default=DEFAULT_PROMISE_ID,
        metavar="TEMPLATE",
        help="the id of each promise ({{.id}}.{{.timestamp}})",
    )
    put.add_argument(
        "--timeout", type=deadline, metavar="DURATION", help="each promise's, or never (default)"
    )
    put.add_argument("--tag", action="append", default=[], metavar="NAME=TEXT")
    put.add_argument("--target", metavar="ADDRESS", help="who does the work: queue://NAME, …")
    add_payload(put, "param")
    put.set_defaults(run=in_session(_put))
    for verb, text, command in (
        ("pause", "let it not fire until it is resumed", _pause),
        ("resume", "undo a pause; what was missed fires as --catchup says", _resume),
        ("trigger", "fire it now", _trigger),
        ("backfill", "fire the instants of a span that did not", _backfill),
    ):
        one = verbs.add_parser(verb, help=text, parents=[everywhere])
        one.add_argument("id", metavar="ID")
        if verb == "trigger":
            one.add_argument("--key", metavar="TEXT", help="the same key fires once")
        if verb == "backfill":
            for end in ("from", "to"):
                one.add_argument(
                    f"--{end}",
                    dest=end,
                    type=instant,
                    required=True,
                    metavar="INSTANT",
                    help="such as 2026-03-29T02:00:00+01:00; UTC if nothing else is said",
                )
        one.set_defaults(run=in_session(command))


def instant(text: str) -> int:
    """Milliseconds since the epoch from ISO 8601; for argparse."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2026-03-29T02:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000)


async def _put(session: Session, arguments: argparse.Namespace) -> None:
    tags = tag_pairs(arguments.tag)
    if arguments.target is not None:
        tags[tag.TARGET] = arguments.target
    request = s.SchedulePut(
        arguments.id,
        arguments.promise_id,
        NEVER_MS if arguments.timeout is None else arguments.timeout,
        cron=arguments.cron,
        every=arguments.every,
        zone=arguments.zone,
        jitter=arguments.jitter,
        overlap=Overlap(arguments.overlap),
        catchup=Catchup(arguments.catchup),
        paused=arguments.paused,
        promise_param=payload(arguments.param, raw=arguments.raw),
        promise_tags=tags,
    )
    await _shown(session, request)


async def _shown(session: Session, request: Request) -> None:
    schedule = (await session.ask(request, ScheduleResult)).schedule
    session.show(schedule, details(schedule, session.output))


async def _pause(session: Session, arguments: argparse.Namespace) -> None:
    await _shown(session, s.SchedulePause(arguments.id))


async def _resume(session: Session, arguments: argparse.Namespace) -> None:
    await _shown(session, s.ScheduleResume(arguments.id))


async def _trigger(session: Session, arguments: argparse.Namespace) -> None:
    request = s.ScheduleTrigger(arguments.id, arguments.key)
    promise = (await session.ask(request, PromiseResult)).promise
    session.done(f"{promise.id} fired", promise)


async def _backfill(session: Session, arguments: argparse.Namespace) -> None:
    since, until = getattr(arguments, "from"), arguments.to
    schedule = (
        await session.ask(s.ScheduleBackfill(arguments.id, since, until), ScheduleResult)
    ).schedule
    session.done(f"{arguments.id} is being filled in", schedule)
