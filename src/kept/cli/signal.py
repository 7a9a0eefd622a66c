"""A message to running work, which gets it from `ctx.receive(NAME)`.

kept signal order-42 approval --value '{"by": "ann"}'
kept signal order-42 lines --value 7 --key line-7
"""

from __future__ import annotations

import argparse
from typing import Final

from kept.cli.payload import add_payload, payload
from kept.cli.session import Session, in_session
from kept.protocol.requests import SignalSend
from kept.protocol.responses import SignalResult

_KEY_BYTES: Final = 16


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The arguments of `kept signal`, which has no verbs."""
    parser.add_argument("id", metavar="ID", help="the work's promise")
    parser.add_argument("name", metavar="NAME", help="the mailbox: a-z, 0-9, _ and -")
    add_payload(parser, "value")
    parser.add_argument("--key", metavar="KEY", help="sent again under it, it is the same message")
    parser.set_defaults(run=in_session(_send))


async def _send(session: Session, arguments: argparse.Namespace) -> None:
    # A key of its own makes it safe to ask again when an answer is lost.
    key = arguments.key or session.runtime.entropy(_KEY_BYTES).hex()
    value = payload(arguments.value, raw=arguments.raw)
    request = SignalSend(arguments.id, arguments.name, value, key)
    sent = await session.ask(request, SignalResult)
    session.done(f"sent as number {sent.number}", sent)
