"""Token buckets: a share of a rate for all processes together.

kept bucket take mail --limit 100 --period 1m
kept bucket take mail --limit 100 --period 1m --burst 20 --cost 5 --wait 10s
"""

from __future__ import annotations

import argparse

from kept.cli.durations import duration
from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError, complain
from kept.cli.session import Session, in_session
from kept.errors import RateLimitedError
from kept.protocol.guard_checks import GUARD_CHECKS
from kept.protocol.guard_requests import BucketTake
from kept.protocol.limits import MAX_BUCKET_PERIOD_MS, MAX_BUCKET_TOKENS
from kept.sdk.buckets import Bucket


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept bucket`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    take = verbs.add_parser(
        "take",
        help="take tokens, waiting for them or refusing",
        description="Takes tokens of a bucket that gains LIMIT in each PERIOD and holds at most BURST. "
        "All who take from it share it, whatever program they are; it needs no creation. It waits "
        "until the tokens are there. Exit code 0: they are taken. 1: they will not be there within "
        "--wait, which is said at once, and nothing is taken.",
        parents=[everywhere],
    )
    take.add_argument("key", metavar="NAME")
    take.add_argument(
        "--limit", type=_tokens, required=True, metavar="N", help="tokens gained in each period"
    )
    take.add_argument(
        "--period", type=_period, default=1_000, metavar="DURATION", help="the period (1s)"
    )
    take.add_argument(
        "--burst", type=_tokens, metavar="N", help="tokens saved up at most (as many as --limit)"
    )
    take.add_argument("--cost", type=_tokens, default=1, metavar="N", help="tokens to take (1)")
    take.add_argument(
        "--wait",
        type=duration,
        metavar="DURATION",
        help="how long to wait for them, 0s not at all; as long as it takes by default",
    )
    take.set_defaults(run=in_session(_take))


async def _take(session: Session, arguments: argparse.Namespace) -> int:
    key, cost = arguments.key, arguments.cost
    request = BucketTake(key, arguments.limit, arguments.period, cost, arguments.burst)
    if problem := GUARD_CHECKS[BucketTake](request, frozenset()):
        raise UsageError(problem)
    bucket = Bucket(lambda: (session.connection, session.runtime), request)
    wait = None if arguments.wait is None else arguments.wait / 1_000
    try:
        left = await bucket.take(cost, wait=wait)
    except RateLimitedError as error:
        complain(str(error))
        if session.output.json:
            retry_after = round(error.retry_after * 1_000)
            session.output.document({"key": key, "granted": False, "retryAfter": retry_after})
        return EXIT_REFUSED
    taken = {"key": key, "granted": True, "remaining": left}
    session.done(f"{key}: {cost} taken, {left} left", taken)
    return EXIT_OK


def _tokens(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_BUCKET_TOKENS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number from 1 to {MAX_BUCKET_TOKENS:,}"
        )
    return int(text)


def _period(text: str) -> int:
    length = duration(text)
    if not 1 <= length <= MAX_BUCKET_PERIOD_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1ms to 30d")
    return length
