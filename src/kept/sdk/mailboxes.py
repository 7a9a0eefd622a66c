"""Receiving messages in one run (protocol B8).

Of each mailbox one promise is asked for, that of the next message, for as long as anybody waits. Who
gets the message is decided when it is released: whoever has waited longest. So a receive that was
cancelled has taken nothing, and a replay, which follows the order of releases, gives each message to
the same receive again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from kept.errors import ConfigurationError, NondeterminismError
from kept.protocol.mailboxes import mailbox_problem
from kept.protocol.records import PromiseRecord
from kept.sdk import payload
from kept.sdk.asks import Ask
from kept.sdk.loop import DurableLoop


class MailboxHost(Protocol):
    """The run whose mailboxes these are."""

    id: str

    def message_ask(self, name: str, number: int) -> Ask:
        """The ask for a message, to which nobody listens yet."""

    def ask_message(self, ask: Ask) -> None:
        """Somebody waits for it now."""

    def withdraw_message(self, ask: Ask) -> None:
        """Nobody waits for it any more."""


class _Mailbox:
    """`line`: the steps that wait, in order. `ask`: for the next message, its step the first in line.
    `returned`: messages whose receiver was cancelled before it got to look at them."""

    def __init__(self, ask: Ask, name: str) -> None:
        self.name = name
        self.number = 1
        self.ask = ask
        self.line: dict[str, None] = {}
        self.returned: deque[PromiseRecord] = deque()


class Mailboxes:
    """Who waits for which messages."""

    def __init__(self, host: MailboxHost, loop: DurableLoop) -> None:
        self._host = host
        self._loop = loop
        self._by_name: dict[str, _Mailbox] = {}
        self._by_ask: dict[str, _Mailbox] = {}

    async def receive(self, name: str, expected: Any) -> Any:
        """The next message; runs as durable code. Raises as any awaited promise does."""
        mailbox = self._mailbox(name)
        step = self._loop.next_step()
        future = self._loop.external(step, on_cancel=lambda step: self._leave(mailbox, step))
        mailbox.line[step] = None
        self._point(mailbox)
        try:
            record: PromiseRecord = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                mailbox.returned.append(future.result())
            raise
        error = payload.outcome_error(record)
        if error is not None:
            raise error
        return payload.decode(record.value, expected)

    def _mailbox(self, name: str) -> _Mailbox:
        mailbox = self._by_name.get(name)
        if mailbox is None:
            if problem := mailbox_problem(self._host.id, name):
                raise ConfigurationError(problem)
            ask = self._host.message_ask(name, 1)
            mailbox = self._by_name[name] = _Mailbox(ask, name)
            self._by_ask[ask.id] = mailbox
        return mailbox

    def _leave(self, mailbox: _Mailbox, step: str) -> None:
        del mailbox.line[step]
        self._point(mailbox)

    def _point(self, mailbox: _Mailbox) -> None:
        """The message is for whoever is first in line now."""
        ask = mailbox.ask
        before, ask.step = ask.step, next(iter(mailbox.line), "")
        if ask.step and not before:
            self._host.ask_message(ask)
        elif before and not ask.step:
            self._host.withdraw_message(ask)

    def take(self, ask: Ask) -> str:
        """The step that gets the message, which is on its way; the next in line waits for the next
        one. Raises `NondeterminismError` where nobody receives, though somebody did before."""
        mailbox = self._by_ask.pop(ask.id)
        step = next(iter(mailbox.line), None)
        if step is None:
            raise NondeterminismError(
                f"the code received {ask.id} at this place before, and does not receive now"
            )
        del mailbox.line[step]
        ask.step = ""
        mailbox.number += 1
        mailbox.ask = self._host.message_ask(mailbox.name, mailbox.number)
        self._by_ask[mailbox.ask.id] = mailbox
        self._point(mailbox)
        return step

    def release_returned(self) -> bool:
        """Gives a message that came back to whoever waits for one; `run_ready` must follow."""
        for mailbox in self._by_name.values():
            step = next(iter(mailbox.line), None)
            if mailbox.returned and step is not None:
                del mailbox.line[step]
                self._point(mailbox)
                return self._loop.release(step, mailbox.returned.popleft())
        return False
