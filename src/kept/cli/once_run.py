"""`kept once run`: a command whose output is recorded once for its key (docs/guards.md)."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any, Final

from kept.cli.child import EXIT_CODES, EXIT_SIGNAL_BASE, Child, command_of
from kept.cli.durations import duration
from kept.cli.failure import EXIT_OK, UsageError
from kept.cli.holding import add_ttl
from kept.cli.session import Session, in_session
from kept.protocol.texts import id_problem
from kept.sdk.functions import Registry
from kept.sdk.ledger import DEFAULT_WINDOW_SECONDS, LEDGER_QUEUE, Asked, Ledger
from kept.sdk.services import Services

KEY_VARIABLE: Final = "KEPT_IDEMPOTENCY_KEY"

_DESCRIPTION: Final = f"""\
Runs a command once for KEY, whoever asks, and records what it prints. Everybody who asks within the
window of the first call gets that, and nothing runs. One runs it at a time; the others wait.
A command that fails is not recorded: the next call runs it again. So it may run more than once where
it, or this process, ends before the record: pass {KEY_VARIABLE} on, which is the same each time.
What it prints is UTF-8 text, at most 1 MiB, and is shown when it has ended.

{EXIT_CODES}.
0 where its output is recorded, now or by an earlier call."""


def add_run(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """The verb `run`."""
    run = verbs.add_parser(
        "run",
        help="run a command once for a key, or print what it printed",
        usage="kept once run [options] KEY -- COMMAND …",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[everywhere],
    )
    run.add_argument("key", metavar="KEY")
    run.add_argument(
        "--window",
        type=duration,
        default=round(DEFAULT_WINDOW_SECONDS * 1_000),
        metavar="DURATION",
        help="how long the output stands for the key, from the first call on (7d)",
    )
    add_ttl(run)
    run.add_argument("command", metavar="COMMAND", nargs="+", help="and its arguments, after --")
    run.set_defaults(run=in_session(_run))


class _FailedError(Exception):
    """The command did not end with 0."""

    def __init__(self, code: int, printed: str) -> None:
        super().__init__(f"it ended with {code}")
        self.code = code
        self.printed = printed


async def _run(session: Session, arguments: argparse.Namespace) -> int:
    key = arguments.key
    command = command_of(arguments.rest, key)
    if problem := id_problem(key, "key"):
        raise UsageError(problem)
    child = Child()

    async def run_command(idempotency_key: str) -> str:
        more = {KEY_VARIABLE: idempotency_key}
        code, printed = await child.run(command, more, stdout=asyncio.subprocess.PIPE)
        text = printed.decode(errors="replace")
        if code:
            raise _FailedError(code, text)
        return text

    services = Services(session.connection, session.runtime, Registry(), LEDGER_QUEUE)
    function = services.as_function(run_command)
    asked = Asked(key, function, (), {}, arguments.window, arguments.ttl)
    try:
        printed = await Ledger(services, asked).result()
    except _FailedError as failed:
        sys.stdout.write(failed.printed)
        return failed.code
    except asyncio.CancelledError:
        if child.received is None:
            raise
        return EXIT_SIGNAL_BASE + child.received
    if session.output.json:
        session.output.document({"key": key, "output": printed})
    elif not session.output.quiet:
        sys.stdout.write(printed)
    return EXIT_OK
