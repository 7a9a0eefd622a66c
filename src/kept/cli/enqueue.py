"""Starts a function by its name, on whichever worker has it.

kept enqueue charge order=42 cents=1999 --id order-42 --wait 20s
kept enqueue report --args '["2026-03"]' --at 2026-04-01T06:00:00Z --queue reports --priority 9
kept enqueue sync account=ann --lane ann --attempts 5 --backoff exponential:1s:10m
kept enqueue index doc=7 --debounce doc-7 --delay 5s
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

import msgspec

from kept.cli.durations import deadline, duration
from kept.cli.failure import UsageError
from kept.cli.payload import content_of
from kept.cli.promise import show_settled
from kept.cli.schedule_changes import instant
from kept.cli.session import Session, in_session, tag_pairs
from kept.errors import ResultGoneError
from kept.protocol.limits import MAX_ATTEMPTS
from kept.protocol.responses import PromiseResult
from kept.sdk import checks
from kept.sdk.announcing import Routes
from kept.sdk.app import DEFAULT_QUEUE
from kept.sdk.duplicates import Debounce, DebounceMode, Singleton, SingletonMode
from kept.sdk.options import Exhausted
from kept.sdk.payload import outcome_error
from kept.sdk.retry import Constant, Exponential, Linear, Retry
from kept.sdk.services import Target
from kept.sdk.starting import Start, create_request

# What the engine does where nothing else is said (B2).
DEFAULT_BACKOFF: Final = "full_jitter:1s:15m"


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The arguments of `kept enqueue`, which has no verbs."""
    parser.add_argument("name", metavar="NAME", help="the function, or NAME@VERSION of it")
    parser.add_argument(
        "values",
        nargs="*",
        metavar="PARAMETER=VALUE",
        help="JSON, or any text, which then is a JSON string; @FILE reads a file, - standard input",
    )
    parser.add_argument("--args", metavar="JSON", help="an array or an object of all arguments")
    for option, kind, meta, text in (
        ("--id", str, "ID", "the same id is the same work (a new one)"),
        ("--queue", str, "QUEUE", "where it waits (the one that workers announce for it)"),
        ("--timeout", deadline, "DURATION", "its deadline: 10s, 2d, never (the default)"),
        ("--delay", duration, "DURATION", "when it may begin, counted from now"),
        ("--at", instant, "INSTANT", "when it may begin, such as 2026-03-29T02:00:00+01:00"),
        ("--priority", int, "0..9", "higher first (0)"),
        ("--lane", str, "LANE", "whose turn in the queue it takes: a customer, say"),
        ("--attempts", int, "N", "how often it is tried, in the place of its function's policy"),
        (
            "--backoff",
            str,
            "POLICY",
            "fixed:B, linear:B:MAX, exponential:B:MAX, full_jitter:B:MAX; for ever without --attempts",
        ),
        ("--dedupe", str, "KEY", "one of those with an equal key is started"),
        ("--dedupe-window", duration, "DURATION", "for so long, also once it has ended"),
        ("--debounce", str, "KEY", "one of those that follow each other by less than --delay"),
        ("--debounce-longest", duration, "DURATION", "after the first, at the latest"),
        ("--singleton-key", str, "KEY", "what --singleton is about (the function)"),
        ("--wait", duration, "DURATION", "wait for it to settle, at most so long"),
    ):
        parser.add_argument(option, type=kind, metavar=meta, help=text)
    for option, choices, text in (
        ("--exhausted", Exhausted, "what becomes of it when it is given up on (reject)"),
        ("--debounce-mode", DebounceMode, "of the one that waits (postpone)"),
        ("--singleton", SingletonMode, "while another one is under way"),
    ):
        parser.add_argument(option, choices=get_args(choices), help=text)
    parser.add_argument(
        "--tag", action="append", default=[], metavar="NAME=TEXT", help="whatever else it says"
    )
    parser.set_defaults(run=in_session(_enqueue))


async def _enqueue(session: Session, arguments: argparse.Namespace) -> int:
    args, kwargs = _arguments(arguments)
    start = Start(
        id=arguments.id,
        timeout=_span(arguments.timeout),
        delay=None if arguments.debounce is not None else _span(arguments.delay),
        at=None if arguments.at is None else datetime.fromtimestamp(arguments.at / 1_000, UTC),
        priority=arguments.priority,
        lane=arguments.lane,
        queue=arguments.queue,
        retry=_retry(arguments.attempts, arguments.backoff),
        exhausted=arguments.exhausted,
        dedupe=arguments.dedupe,
        dedupe_window=_span(arguments.dedupe_window),
        debounce=_debounce(arguments),
        singleton=_singleton(arguments.singleton, arguments.singleton_key),
    )
    queue = arguments.queue
    if queue is None:
        queue = await Routes(session.connection, session.runtime).queue_of(arguments.name)
    target = Target(arguments.name, queue or DEFAULT_QUEUE, Any, {}, None)
    create = create_request(session.runtime, target, args, kwargs, start)
    create.tags.update(tag_pairs(arguments.tag))
    promise = (await session.ask(create, PromiseResult)).promise
    if arguments.id not in (None, promise.id):
        session.output.note(f"kept: {promise.id} stands for it")
    if isinstance(gone := outcome_error(promise), ResultGoneError):
        session.output.note(f"kept: {gone}")
    return await show_settled(session, promise, arguments.wait)


def _arguments(arguments: argparse.Namespace) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """By position and by name."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if arguments.args is not None:
        given = _json("--args", content_of(arguments.args))
        if isinstance(given, list):
            args = tuple(given)
        elif isinstance(given, dict):
            kwargs = given
        else:
            raise UsageError("--args: write a JSON array, or an object of parameters by name")
    for text in arguments.values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text}: write PARAMETER=VALUE")
        content = content_of(value)
        try:
            kwargs[name] = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError):
            kwargs[name] = content
    return args, kwargs


def _json(option: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"{option}: is no JSON: {error}") from None


def _span(milliseconds: int | None) -> timedelta | None:
    try:
        return None if milliseconds is None else timedelta(milliseconds=milliseconds)
    except OverflowError:
        return timedelta.max


def _retry(attempts: int | None, backoff: str | None) -> Retry | None:
    if attempts is None and backoff is None:
        return None
    if attempts is not None:
        checks.whole("--attempts", attempts, 1, MAX_ATTEMPTS)
    name, *parts = (backoff or DEFAULT_BACKOFF).split(":")
    try:
        seconds = [duration(part) / 1_000 for part in parts]
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--backoff: {error}") from None
    match name, seconds:
        case "fixed", [delay]:
            return Constant(attempts=attempts, delay=delay)
        case "linear", [step, limit]:
            return Linear(attempts=attempts, step=step, limit=limit)
        case (("exponential" | "full_jitter"), [base, limit]):
            jitter = name == "full_jitter"
            return Exponential(attempts=attempts, base=base, limit=limit, jitter=jitter)
    raise UsageError(
        f"--backoff {backoff}: write fixed:5s, linear:1s:1m, exponential:1s:10m or {DEFAULT_BACKOFF}"
    )


def _debounce(arguments: argparse.Namespace) -> Debounce | None:
    if arguments.debounce is None:
        if arguments.debounce_mode or arguments.debounce_longest is not None:
            raise UsageError("--debounce-mode and --debounce-longest need --debounce")
        return None
    delay = _span(arguments.delay)
    if delay is None:
        raise UsageError("--debounce: needs --delay, how long after the last one it begins")
    longest = _span(arguments.debounce_longest)
    return Debounce(arguments.debounce, delay, longest, arguments.debounce_mode or "postpone")


def _singleton(mode: SingletonMode | None, key: str | None) -> Singleton | None:
    if mode is None and key is not None:
        raise UsageError("--singleton-key: needs --singleton")
    return None if mode is None else Singleton(mode, key)
