"""Promises: named slots for results that are known exactly once.

kept promise create approval-7 --external --timeout 2d
kept promise resolve approval-7 --value '{"approved": true}'
kept promise get approval-7 --wait 30s
kept promise listen approval-7 https://example.com/hook
kept promise deliveries approval-7
kept promise search --state pending --tag resonate:origin=order-42
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.durations import deadline, duration, instant_after
from kept.cli.failure import EXIT_OK, EXIT_REFUSED
from kept.cli.output import Output, Row
from kept.cli.payload import add_payload, payload, readable
from kept.cli.session import Session, add_listing, in_session, tag_pairs
from kept.protocol import tags as tag
from kept.protocol.inquiries import DeliveriesResult, PromiseDeliveries
from kept.protocol.limits import MAX_WAIT_MS
from kept.protocol.records import PromiseRecord, PromiseState
from kept.protocol.requests import (
    PromiseCreate,
    PromiseGet,
    PromiseRegisterListener,
    PromiseSearch,
    PromiseSettle,
    PromiseWait,
)
from kept.protocol.responses import PromisePage, PromiseResult

_SETTLE_VERBS = {
    "resolve": PromiseState.RESOLVED,
    "reject": PromiseState.REJECTED,
    "cancel": PromiseState.REJECTED_CANCELED,
}


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept promise`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    get = verbs.add_parser("get", help="show a promise", parents=[everywhere])
    get.add_argument("id", metavar="ID")
    get.add_argument(
        "--wait", type=duration, metavar="DURATION", help="wait for it to settle, at most so long"
    )
    get.set_defaults(run=in_session(_get))

    said = verbs.add_parser("state", help="show what its work says of it", parents=[everywhere])
    said.add_argument("id", metavar="ID")
    said.set_defaults(run=in_session(_state))

    listen = verbs.add_parser(
        "listen", help="have a webhook POSTed once it is settled", parents=[everywhere]
    )
    listen.add_argument("id", metavar="ID")
    listen.add_argument("address", metavar="URL", help="http:// or https://, or another address")
    listen.set_defaults(run=in_session(_listen))

    tries = verbs.add_parser(
        "deliveries", help="show what became of its webhooks", parents=[everywhere]
    )
    tries.add_argument("id", metavar="ID")
    tries.set_defaults(run=in_session(_deliveries))

    create = verbs.add_parser("create", help="create a promise", parents=[everywhere])
    create.add_argument("id", metavar="ID")
    create.add_argument(
        "--timeout",
        type=deadline,
        metavar="DURATION",
        help="when it settles by itself: 10s, 2d, never (the default)",
    )
    create.add_argument("--tag", action="append", default=[], metavar="NAME=TEXT")
    create.add_argument(
        "--target", metavar="ADDRESS", help="who does the work: queue://NAME, poll://…, https://…"
    )
    create.add_argument(
        "--delay", type=duration, metavar="DURATION", help="when the work may begin"
    )
    create.add_argument("--external", action="store_true", help="others may wait for it")
    add_payload(create, "param")
    create.set_defaults(run=in_session(_create))

    for verb, state in _SETTLE_VERBS.items():
        settle = verbs.add_parser(verb, help=f"{verb} a pending promise", parents=[everywhere])
        settle.add_argument("id", metavar="ID")
        add_payload(settle, "value")
        settle.set_defaults(run=in_session(_settle), state=state)

    search = verbs.add_parser("search", help="list promises by id", parents=[everywhere])
    search.add_argument("--state", choices=[state.value for state in PromiseState])
    for option in ("--tag", "--attribute"):
        search.add_argument(
            option, action="append", default=[], metavar="NAME=TEXT", help="all given must match"
        )
    add_listing(search)
    search.set_defaults(run=in_session(_search))


async def _get(session: Session, arguments: argparse.Namespace) -> int:
    promise = (await session.ask(PromiseGet(arguments.id), PromiseResult)).promise
    return await show_settled(session, promise, arguments.wait)


async def show_settled(session: Session, promise: PromiseRecord, wait_ms: int | None) -> int:
    """Shows a promise once it is settled, or after `wait_ms` as it is then."""
    end = session.runtime.monotonic() + (wait_ms or 0) / 1_000
    while wait_ms and promise.state is PromiseState.PENDING:
        left_ms = round((end - session.runtime.monotonic()) * 1_000)
        if left_ms <= 0:
            break
        wait = PromiseWait(promise.id, min(left_ms, MAX_WAIT_MS))
        promise = (await session.ask(wait, PromiseResult)).promise
    session.show(promise, details(promise, session.output))
    if wait_ms and promise.state is PromiseState.PENDING:
        session.output.note(f"kept: {promise.id} is still pending")
        return EXIT_REFUSED
    return EXIT_OK


async def _state(session: Session, arguments: argparse.Namespace) -> None:
    said = await session.ask(PromiseGet(arguments.id, attributes=True), PromiseResult)
    fields = [
        ("id", arguments.id),
        ("state", said.promise.state.value),
        ("progress", "" if said.progress is None else f"{said.progress:.0%}"),
    ]
    fields += sorted((said.attributes or {}).items())
    session.show({"progress": said.progress, "attributes": said.attributes}, fields)


async def _listen(session: Session, arguments: argparse.Namespace) -> int:
    request = PromiseRegisterListener(arguments.id, arguments.address)
    promise = (await session.ask(request, PromiseResult)).promise
    session.done(f"{promise.id} {promise.state.value}", promise)
    if promise.state is PromiseState.PENDING:
        return EXIT_OK
    session.output.note(f"kept: {promise.id} is settled already, so nothing will be sent")
    return EXIT_REFUSED


async def _deliveries(session: Session, arguments: argparse.Namespace) -> None:
    result = await session.ask(PromiseDeliveries(arguments.id), DeliveriesResult)
    output = session.output
    if output.json:
        for each in result.deliveries:
            output.document(each)
        return
    rows = [
        (
            output.instant(each.at),
            each.address,
            str(each.number),
            f"{each.took}ms",
            each.error or "delivered",
            output.instant(each.next_at),
        )
        for each in result.deliveries
    ]
    if not output.quiet:
        output.rows(("AT", "ADDRESS", "TRY", "TOOK", "OUTCOME", "NEXT"), rows)


async def _create(session: Session, arguments: argparse.Namespace) -> None:
    tags = tag_pairs(arguments.tag)
    if arguments.target is not None:
        tags[tag.TARGET] = arguments.target
    if arguments.external:
        tags[tag.EXTERNAL] = "true"
    if arguments.delay is not None:
        tags[tag.DELAY] = str(instant_after(session.now_ms, arguments.delay))
    request = PromiseCreate(
        arguments.id,
        instant_after(session.now_ms, arguments.timeout),
        payload(arguments.param, raw=arguments.raw),
        tags,
    )
    promise = (await session.ask(request, PromiseResult)).promise
    session.show(promise, details(promise, session.output))


async def _settle(session: Session, arguments: argparse.Namespace) -> int:
    value = payload(arguments.value, raw=arguments.raw)
    request = PromiseSettle(arguments.id, arguments.state, value)
    promise = (await session.ask(request, PromiseResult)).promise
    word = promise.state.value
    if promise.state is not arguments.state:
        session.done(f"{promise.id} {word}", promise)
        session.output.note(f"kept: nothing changed, {promise.id} was {word} already")
        return EXIT_REFUSED
    if promise.value.normal() != value.normal():
        session.done(f"{promise.id} {word}", promise)
        session.output.note(f"kept: nothing changed, {promise.id} was {word} with another value")
        return EXIT_REFUSED
    session.done(f"{promise.id} {word}", promise)
    return EXIT_OK


async def _search(session: Session, arguments: argparse.Namespace) -> None:
    state = PromiseState(arguments.state) if arguments.state else None
    tags = tag_pairs(arguments.tag) or None
    said = tag_pairs(arguments.attribute) or None

    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(PromiseSearch(state, tags, rows, cursor, said), PromisePage)
        return found.promises, found.cursor

    def row(promise: PromiseRecord) -> Row:
        return (
            promise.id,
            promise.state.value,
            session.output.instant(promise.created_at),
            session.output.instant(promise.settled_at),
            promise.tags.get(tag.FUNCTION, promise.tags.get(tag.TARGET, "")),
        )

    header = ("ID", "STATE", "CREATED", "SETTLED", "FUNCTION")
    await session.listing(arguments, page, header, row)


def details(promise: PromiseRecord, output: Output) -> list[tuple[str, str]]:
    """A promise, field by field."""
    fields = [
        ("id", promise.id),
        ("state", promise.state.value),
        ("created", output.exact(promise.created_at)),
        ("settled", output.exact(promise.settled_at)),
        ("deadline", output.exact(promise.timeout_at)),
        ("param", readable(promise.param)),
        ("value", readable(promise.value)),
    ]
    fields += [("tag", f"{name}={text}") for name, text in sorted(promise.tags.items())]
    return fields
