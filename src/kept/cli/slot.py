"""Slots: who holds one of a key's, and until when.

kept slot show api
kept slot release api HOLDER
kept slot run api --limit 5 -- curl https://example.org
"""

from __future__ import annotations

import argparse

from kept.cli.holding import add_run, run_holding
from kept.cli.session import Session, in_session
from kept.protocol.guard_requests import SlotAcquire, SlotGet, SlotRelease
from kept.protocol.limits import MAX_SLOTS
from kept.protocol.responses import Nothing, SlotResult


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept slot`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    show = verbs.add_parser("show", help="show who holds the slots of a key", parents=[everywhere])
    show.add_argument("key", metavar="KEY")
    show.set_defaults(run=in_session(_show))
    release = verbs.add_parser(
        "release",
        help="take a slot from its holder",
        description="Takes a slot from its holder, which learns of it by its next heartbeat and "
        "may go on until then.",
        parents=[everywhere],
    )
    release.add_argument("key", metavar="KEY")
    release.add_argument("holder", metavar="HOLDER")
    release.set_defaults(run=in_session(_release))
    run = add_run(verbs, everywhere, "slot", "Slots have no fence: there is no order of holders.")
    run.add_argument(
        "--limit", type=_limit, required=True, metavar="N", help="how many may hold one at a time"
    )
    run.set_defaults(run=in_session(_run))


async def _show(session: Session, arguments: argparse.Namespace) -> None:
    slots = await session.ask(SlotGet(arguments.key), SlotResult)
    fields = [("key", slots.key), ("held", str(len(slots.holders)))]
    fields += [
        ("holder", f"{each.holder}, until {session.output.exact(each.expires_at)}")
        for each in slots.holders
    ]
    fields += [("waiting", str(slots.waiting))]
    session.show(slots, fields)


async def _release(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(SlotRelease(arguments.key, arguments.holder), Nothing)
    text = f"{arguments.key}: {arguments.holder} has no slot now"
    session.done(text, {"key": arguments.key, "released": True})


async def _run(session: Session, arguments: argparse.Namespace) -> int:
    acquire = SlotAcquire(arguments.key, arguments.limit, "", arguments.ttl)
    return await run_holding(session, arguments, acquire)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_SLOTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_SLOTS:,}")
    return int(text)
