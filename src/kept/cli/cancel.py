"""Cancels work, and what it started: asks it to stop, or stops it.

kept cancel order-42 --reason "out of stock"
kept cancel order-42 --force
kept cancel order-42 --no-children

What runs is asked to stop: its code may clean up, and has a minute for it. What has not begun is
settled at once, and so is everything with --force. Its descendants follow in the background; the
same command again tells how far that is.
"""

from __future__ import annotations

import argparse

from kept.cli.failure import EXIT_OK, EXIT_REFUSED
from kept.cli.output import Output, clean
from kept.cli.session import Session, in_session
from kept.protocol.entries import CancelMode
from kept.protocol.records import PromiseState
from kept.protocol.requests import PromiseCancel
from kept.protocol.responses import CancelRecord, CancelResult


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The arguments of `kept cancel`."""
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--reason", metavar="TEXT", help="why, for whoever waits for it")
    parser.add_argument("--force", action="store_true", help="settle it at once")
    parser.add_argument("--no-children", action="store_true", help="leave what it started alone")
    parser.set_defaults(run=in_session(_cancel))


async def _cancel(session: Session, arguments: argparse.Namespace) -> int:
    mode = CancelMode.FORCE if arguments.force else CancelMode.REQUEST
    request = PromiseCancel(
        arguments.id, arguments.reason, mode, recursive=not arguments.no_children
    )
    result = await session.ask(request, CancelResult)
    state = result.promise.state
    if state not in (PromiseState.PENDING, PromiseState.REJECTED_CANCELED):
        session.done(f"{arguments.id} {state.value}", result)
        session.output.note(f"kept: nothing changed, {arguments.id} was {state.value} already")
        return EXIT_REFUSED
    session.done(_told(arguments.id, result, session.output), result)
    if result.cancel is not None:
        for hint in _hints(arguments.id, result.cancel):
            session.output.note(hint)
    return EXIT_OK


def _told(id: str, result: CancelResult, output: Output) -> str:
    shown = clean(id)
    if result.cancel is None or result.promise.state is not PromiseState.PENDING:
        text = f"{shown} rejected_canceled"
    else:
        text = f"{shown} is asked to stop; at {output.exact(result.cancel.ends_at)} it is stopped"
    if result.cancel is not None and (result.cancel.descendants or result.cancel.spreading):
        more = ", and more follow" if result.cancel.spreading else ""
        text += f"; {result.cancel.descendants} descendants reached{more}"
    return text


def _hints(id: str, cancel: CancelRecord) -> list[str]:
    hints: list[str] = []
    if cancel.ends_at is not None:
        hints.append(f"kept: to wait for its end: kept promise get {id} --wait 60s")
    if cancel.spreading:
        hints.append(f"kept: how far it is tells: kept cancel {id}; and: kept tree {id}")
    return hints
