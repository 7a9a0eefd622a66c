"""`kept lock run` and `kept slot run`: a command that runs while a lease is held."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

from kept.cli.child import (
    EXIT_CODES,
    EXIT_LOST,
    EXIT_NOT_HAD,
    EXIT_SIGNAL_BASE,
    GRACE_SECONDS,
    Child,
    command_of,
)
from kept.cli.durations import duration
from kept.cli.failure import UsageError, complain
from kept.cli.session import Session
from kept.errors import LockHeldError, LockLostError
from kept.protocol.limits import MAX_LOCK_TTL_MS
from kept.protocol.spoken import timestamp
from kept.protocol.texts import id_problem
from kept.sdk.held import Acquire, Held

FENCE_VARIABLE: Final = "KEPT_FENCE"
_DEFAULT_TTL_MS: Final = 30_000

_DESCRIPTION: Final = """\
Waits for a {what}, runs the command while it is held, and gives it back.
{more}
The lease is renewed meanwhile. Where it is lost all the same, the command is ended: SIGTERM to it
and what it started, SIGKILL after {grace:g} s (on a terminal: to the command alone).

{codes};
{not_had} where the {what} was not had in time (the command did not run), {lost} where it was lost."""


def add_run(verbs: Any, everywhere: argparse.ArgumentParser, what: str, more: str) -> Any:
    """The verb `run` with the options of leases. `what` is held; `more` says what it comes with."""
    metavar = "NAME" if what == "lock" else "KEY"
    run = verbs.add_parser(
        "run",
        help=f"run a command while a {what} is held",
        usage=f"kept {what} run [options] {metavar} -- COMMAND …",
        description=_DESCRIPTION.format(
            what=what,
            more=more,
            grace=GRACE_SECONDS,
            codes=EXIT_CODES,
            not_had=EXIT_NOT_HAD,
            lost=EXIT_LOST,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[everywhere],
    )
    run.add_argument("key", metavar=metavar)
    add_ttl(run)
    run.add_argument(
        "--wait",
        type=duration,
        metavar="DURATION",
        help="how long to wait for it, 0s not at all; as long as it takes by default",
    )
    run.add_argument("command", metavar="COMMAND", nargs="+", help="and its arguments, after --")
    return run


def add_ttl(parser: argparse.ArgumentParser) -> None:
    """The option `--ttl` of what holds a lease."""
    parser.add_argument(
        "--ttl",
        type=_ttl,
        default=_DEFAULT_TTL_MS,
        metavar="DURATION",
        help="how long others wait after a crash of this process (30s)",
    )


async def run_holding(session: Session, arguments: argparse.Namespace, acquire: Acquire) -> int:
    """Runs the command of `arguments` under the lease that `acquire` asks for; its exit code."""
    key: str = arguments.key
    command = command_of(arguments.rest, key)
    if problem := id_problem(key, "name"):
        raise UsageError(problem)
    held = Held(key, lambda: (session.connection, session.runtime), acquire, arguments.wait)
    child = Child()
    try:
        async with held as lease:
            fence = {FENCE_VARIABLE: str(lease.fence)} if lease.fence else {}
            code, _ = await child.run(command, fence)
            return code
    except LockHeldError as error:
        by = f" by {error.holder}" if error.holder else ""
        until = f" until {timestamp(error.expires_at)}" if error.expires_at else ""
        complain(f"{key!r} was not had in time, it is held{by}{until}")
        return EXIT_NOT_HAD
    except LockLostError as error:
        complain(f"{error}; the command is not running any more")
        return EXIT_LOST
    except asyncio.CancelledError:
        if child.received is None:
            raise
        return EXIT_SIGNAL_BASE + child.received


def _ttl(text: str) -> int:
    length = duration(text)
    if not 1 <= length <= MAX_LOCK_TTL_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1ms to 1d")
    return length
