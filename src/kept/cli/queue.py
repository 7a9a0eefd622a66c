"""Queues: their settings, and how they stand.

kept queue put mail --concurrency 10 --rate 100/1m --lane-concurrency 2
kept queue list
kept queue stats mail
kept queue pause mail
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from kept.cli.durations import duration
from kept.cli.output import Row
from kept.cli.session import Session, add_listing, in_session
from kept.protocol.entries import LaneLimits, RateLimit
from kept.protocol.requests import (
    QueueDelete,
    QueueGet,
    QueueList,
    QueuePause,
    QueuePut,
    QueueResume,
    QueueStats,
)
from kept.protocol.responses import (
    Nothing,
    QueuePage,
    QueueRate,
    QueueRecord,
    QueueResult,
    QueueStatsResult,
)
from kept.protocol.spoken import spoken

_NONE: Final = "none"
# In a table, for what is not limited.
_NOTHING: Final = "-"


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept queue`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    put = verbs.add_parser(
        "put",
        help="create or change the settings of a queue",
        description="What is not named stays as it is; `none` takes a setting back.",
        parents=[everywhere],
    )
    put.add_argument("name", metavar="QUEUE")
    for option, what, kind, meta in (
        ("--concurrency", "jobs that run at one time", _count, "N"),
        ("--rate", "jobs that start in a period, such as 100/1m", _rate, "N/DURATION"),
        ("--lane-concurrency", "jobs of each lane that run at one time", _count, "N"),
        ("--lane-rate", "jobs of each lane that start in a period", _rate, "N/DURATION"),
        ("--max-depth", "jobs that may wait; beyond that new ones are refused", _count, "N"),
        ("--aging", "how long a wait is worth one step of priority (60s)", _duration, "DURATION"),
        ("--retention", "how long settled work and its results stay (7d)", _duration, "DURATION"),
    ):
        put.add_argument(option, help=what, type=kind, metavar=meta, default=UNSET)
    put.add_argument(
        "--weight",
        action="append",
        default=[],
        type=_weight,
        metavar="LANE=N",
        help="turns that a lane gets in each round; may be repeated",
    )
    put.add_argument(
        "--keep-ids",
        action=argparse.BooleanOptionalAction,
        default=UNSET,
        help="remember ids and verdicts of what has left, so that none of it runs again (no)",
    )
    put.set_defaults(run=in_session(_put))
    for verb, text, command in (
        ("get", "show the settings of a queue", _get),
        ("stats", "show how many of its tasks are in which state", _stats),
        ("pause", "let nothing start; what runs goes on, and new jobs may come", _pause),
        ("resume", "undo a pause", _resume),
        ("delete", "forget the settings; the jobs stay", _delete),
    ):
        one = verbs.add_parser(verb, help=text, parents=[everywhere])
        one.add_argument("name", metavar="QUEUE")
        one.set_defaults(run=in_session(command))
    listing = verbs.add_parser("list", help="list queues that have settings", parents=[everywhere])
    add_listing(listing)
    listing.set_defaults(run=in_session(_list))


def _count(text: str) -> int | None:
    if text == _NONE:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 on nor none")
    return int(text)


def _duration(text: str) -> int | None:
    return None if text == _NONE else duration(text)


def _rate(text: str) -> RateLimit | None:
    if text == _NONE:
        return None
    number, slash, period = text.partition("/")
    limit = _count(number)
    if limit is None or not slash:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 100/1m")
    # "/s" is short for "/1s".
    return RateLimit(limit, duration(period if period[:1].isdigit() else f"1{period}"))


def _weight(text: str) -> tuple[str, int | None]:
    lane, equals, number = text.rpartition("=")
    if not equals or not lane:
        raise argparse.ArgumentTypeError(f"{text!r} is not like LANE=3")
    return lane, _count(number)


async def _put(session: Session, arguments: argparse.Namespace) -> None:
    request = QueuePut(
        arguments.name,
        concurrency=arguments.concurrency,
        rate=arguments.rate,
        max_depth=arguments.max_depth,
        aging=arguments.aging,
        retention=arguments.retention,
        keep_ids=arguments.keep_ids,
    )
    lane = (arguments.lane_concurrency, arguments.lane_rate)
    if arguments.weight or lane != (UNSET, UNSET):
        before = await _known(session, arguments.name)
        request.lane = _changed(before.lane or LaneLimits(), *lane)
        lanes = before.lanes | {
            name: replace(before.lanes.get(name, LaneLimits()), weight=weight)
            for name, weight in arguments.weight
        }
        request.lanes = {name: limits for name, limits in lanes.items() if limits != LaneLimits()}
    queue = (await session.ask(request, QueueResult)).queue
    session.show(queue, _details(queue))


async def _known(session: Session, name: str) -> QueueRecord:
    """The settings as they are; those of a queue that has none by asking for no change."""
    return (await session.ask(QueuePut(name), QueueResult)).queue


def _changed(
    before: LaneLimits, concurrency: int | UnsetType | None, rate: RateLimit | UnsetType | None
) -> LaneLimits:
    return LaneLimits(
        before.concurrency if isinstance(concurrency, UnsetType) else concurrency,
        before.rate if isinstance(rate, UnsetType) else rate,
        before.weight,
    )


async def _get(session: Session, arguments: argparse.Namespace) -> None:
    queue = (await session.ask(QueueGet(arguments.name), QueueResult)).queue
    session.show(queue, _details(queue))


async def _pause(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(QueuePause(arguments.name), QueueResult)
    session.done(f"{arguments.name} paused", {"name": arguments.name, "paused": True})


async def _resume(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(QueueResume(arguments.name), QueueResult)
    session.done(f"{arguments.name} resumed", {"name": arguments.name, "paused": False})


async def _delete(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(QueueDelete(arguments.name), Nothing)
    session.done(f"settings of {arguments.name} deleted", {"name": arguments.name, "deleted": True})


async def _stats(session: Session, arguments: argparse.Namespace) -> None:
    stats = (await session.ask(QueueStats(arguments.name), QueueStatsResult)).stats
    fields = [
        ("queue", stats.name),
        ("waiting", f"{stats.depth} ({stats.due} due, {stats.delayed} delayed)"),
        ("running", str(stats.acquired)),
        ("suspended", str(stats.suspended)),
        ("halted", str(stats.halted)),
        ("dead", str(stats.dead)),
        ("oldest due", session.output.exact(stats.oldest_due_at)),
        ("rate", _used(stats.rate)),
    ]
    session.show(stats, fields)


async def _list(session: Session, arguments: argparse.Namespace) -> None:
    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(QueueList(rows, cursor), QueuePage)
        return found.queues, found.cursor

    def row(queue: QueueRecord) -> Row:
        lane = queue.lane or LaneLimits()
        return (
            queue.name,
            "paused" if queue.paused else "open",
            _number(queue.concurrency),
            _spoken_rate(queue.rate),
            _number(lane.concurrency),
            _spoken_rate(lane.rate),
            _number(queue.max_depth),
        )

    header = ("QUEUE", "STATE", "CONCURRENCY", "RATE", "PER LANE", "LANE RATE", "MAX DEPTH")
    await session.listing(arguments, page, header, row, lambda queue: queue.name)


def _details(queue: QueueRecord) -> list[tuple[str, str]]:
    lane = queue.lane or LaneLimits()
    fields = [
        ("queue", queue.name),
        ("state", "paused" if queue.paused else "open"),
        ("concurrency", _number(queue.concurrency)),
        ("rate", _spoken_rate(queue.rate)),
        ("per lane", _number(lane.concurrency)),
        ("lane rate", _spoken_rate(lane.rate)),
        ("max depth", _number(queue.max_depth)),
        ("aging", "60s" if queue.aging is None else spoken(queue.aging)),
        ("retention", "7d" if queue.retention is None else spoken(queue.retention)),
        ("ids", "kept" if queue.keep_ids else "leave too"),
    ]
    fields += [
        (f"lane {name}", _spoken_lane(limits)) for name, limits in sorted(queue.lanes.items())
    ]
    return fields


def _spoken_lane(lane: LaneLimits) -> str:
    return (
        f"weight {lane.weight or 1}, concurrency {_number(lane.concurrency)}, "
        f"rate {_spoken_rate(lane.rate)}"
    )


def _number(number: int | None) -> str:
    return _NOTHING if number is None else str(number)


def _used(rate: QueueRate | None) -> str:
    if rate is None:
        return ""
    return f"{rate.started} of {rate.limit} started in this {spoken(rate.period)}"


def _spoken_rate(rate: RateLimit | None) -> str:
    return _NOTHING if rate is None else f"{rate.limit}/{spoken(rate.period)}"
