"""Schedules: promises that are created again and again, by a cron expression.

kept schedule create nightly '0 3 * * *' --timeout 1h --target queue://reports
kept schedule put hourly --every 1h --jitter 5m --overlap skip --target queue://reports
kept schedule list
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.durations import deadline
from kept.cli.output import Row
from kept.cli.payload import add_payload, payload
from kept.cli.schedule_changes import DEFAULT_PROMISE_ID, add_changes
from kept.cli.schedule_details import details, rhythm
from kept.cli.session import Session, add_listing, in_session, tag_pairs
from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import ScheduleRecord
from kept.protocol.requests import ScheduleCreate, ScheduleDelete, ScheduleGet, ScheduleSearch
from kept.protocol.responses import Nothing, SchedulePage, ScheduleResult


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept schedule`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    create = verbs.add_parser("create", help="create a schedule", parents=[everywhere])
    create.add_argument("id", metavar="ID")
    create.add_argument("cron", metavar="CRON", help="five fields, or six with seconds first; UTC")
    create.add_argument(
        "--promise-id",
        default=DEFAULT_PROMISE_ID,
        metavar="TEMPLATE",
        help="the id of each promise ({{.id}}.{{.timestamp}})",
    )
    create.add_argument(
        "--timeout", type=deadline, metavar="DURATION", help="each promise's, or never (default)"
    )
    create.add_argument("--tag", action="append", default=[], metavar="NAME=TEXT")
    create.add_argument("--target", metavar="ADDRESS", help="who does the work: queue://NAME, …")
    add_payload(create, "param")
    create.set_defaults(run=in_session(_create))
    add_changes(verbs, everywhere)
    for verb, text, command in (
        ("get", "show a schedule", _get),
        ("delete", "delete a schedule; what it created stays", _delete),
    ):
        one = verbs.add_parser(verb, help=text, parents=[everywhere])
        one.add_argument("id", metavar="ID")
        one.set_defaults(run=in_session(command))
    listing = verbs.add_parser("list", help="list schedules by id", parents=[everywhere])
    listing.add_argument("--tag", action="append", default=[], metavar="NAME=TEXT")
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))


async def _create(session: Session, arguments: argparse.Namespace) -> None:
    tags = tag_pairs(arguments.tag)
    if arguments.target is not None:
        tags[tag.TARGET] = arguments.target
    request = ScheduleCreate(
        arguments.id,
        arguments.cron,
        arguments.promise_id,
        NEVER_MS if arguments.timeout is None else arguments.timeout,
        payload(arguments.param, raw=arguments.raw),
        tags,
    )
    schedule = (await session.ask(request, ScheduleResult)).schedule
    session.show(schedule, details(schedule, session.output))


async def _get(session: Session, arguments: argparse.Namespace) -> None:
    schedule = (await session.ask(ScheduleGet(arguments.id), ScheduleResult)).schedule
    session.show(schedule, details(schedule, session.output))


async def _delete(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(ScheduleDelete(arguments.id), Nothing)
    session.done(f"{arguments.id} deleted", {"id": arguments.id, "deleted": True})


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    tags = tag_pairs(arguments.tag) or None

    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(ScheduleSearch(tags, rows, cursor), SchedulePage)
        return found.schedules, found.cursor

    def row(schedule: ScheduleRecord) -> Row:
        return (
            schedule.id,
            rhythm(schedule),
            session.output.instant(schedule.next_run_at),
            session.output.instant(schedule.last_run_at),
            schedule.promise_tags.get(tag.TARGET, ""),
        )

    await session.listing(arguments, page, ("ID", "CRON", "NEXT", "LAST", "TARGET"), row)
