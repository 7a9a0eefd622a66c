"""Messages to running work (protocol B8).

Message n of a mailbox is a promise of its own, so whoever waits for it waits as for any promise. The
sender and the receiver make the same promise: whoever comes first creates it, and the sender settles
it. What is kept besides is how many were sent, and which number each key got.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from kept.machine.effects import put_new_promise, read_promise, settle
from kept.machine.not_loaded import NotLoaded
from kept.machine.promises import no_promise
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol.entries import Entry, EntryKey, EntryKind, Mailbox, MessageKey
from kept.protocol.limits import (
    MAILBOX_LOOK_MS,
    MAX_PASSED_NUMBERS,
    MESSAGE_KEY_RETENTION_MS,
)
from kept.protocol.mailboxes import is_message, message_id, message_tags
from kept.protocol.records import PromiseState
from kept.protocol.responses import CONFLICT, OK, Response, SignalResult
from kept.protocol.storage import Reads


def mailbox_key(id: str, name: str) -> EntryKey:
    """The key of a mailbox's count."""
    return EntryKey(EntryKind.MAILBOX, msgspec.json.encode([id, name]).decode())


def message_key(id: str, name: str, key: str) -> EntryKey:
    """The key under which the number of a message's key is remembered."""
    return EntryKey(EntryKind.MESSAGE_KEY, msgspec.json.encode([id, name, key]).decode())


def signal_create(step: Step, request: r.SignalSend) -> Response | None:
    """The first half of signal.send: the message has a number and exists. Answers only what ends it
    here: a key that is known, also where the owner has settled since, so that a lost answer can be
    asked for again."""
    records = step.records
    key = None if request.key is None else message_key(request.id, request.name, request.key)
    known = None if key is None else records.entry(key)
    if known is not None:
        assert isinstance(known.data, MessageKey)
        return Response(OK, SignalResult(known.data.number))
    owner = read_promise(step, request.id)
    if owner is None:
        return no_promise(request.id)
    if not owner.pending:
        return Response(CONFLICT, f"promise {owner.id} is {owner.state}: nobody receives there")
    number = _next_number(step, request)
    if number is None:
        text = f"promises that are no messages have the next numbers of mailbox {request.name}"
        return Response(CONFLICT, text)
    mailbox = mailbox_key(request.id, request.name)
    records.put_entry(Entry(mailbox, Mailbox(number), step.now + MAILBOX_LOOK_MS))
    if key is not None:
        forget_at = step.now + MESSAGE_KEY_RETENTION_MS
        records.put_entry(Entry(key, MessageKey(number), forget_at))
    id = message_id(request.id, request.name, number)
    if records.promise(id) is None:
        tags = message_tags(owner.id, request.name, owner.origin)
        # No message outlives the time that its owner has.
        put_new_promise(step, r.PromiseCreate(id, owner.timeout_at, tags=tags))
    return None


def signal_settle(step: Step, request: r.SignalSend) -> Response:
    """The second half: the message has its value, and whoever awaits it is woken."""
    number = _sent(step, request)
    message = step.records.promise(message_id(request.id, request.name, number))
    assert message is not None, request.id
    settle(step, message, PromiseState.RESOLVED, request.value, step.now)
    return Response(OK, SignalResult(number))


def _sent(step: Step, request: r.SignalSend) -> int:
    entry = step.records.entry(mailbox_key(request.id, request.name))
    if entry is None:
        return 0
    assert isinstance(entry.data, Mailbox)
    return entry.data.sent


def _next_number(step: Step, request: r.SignalSend) -> int | None:
    """The next number whose promise is not there, or waits for its message. Others, which somebody
    settled by hand or made for something else, are passed over."""
    sent = _sent(step, request)
    for number in range(sent + 1, sent + 1 + MAX_PASSED_NUMBERS):
        id = message_id(request.id, request.name, number)
        if not step.records.knows_object(id):
            raise NotLoaded(Reads(objects={id}, edges={id}))
        promise = read_promise(step, id)
        if promise is None:
            return number
        if promise.pending and is_message(promise, request.id, request.name):
            return number
    return None


def look_at_mailbox(step: Step, entry: Entry) -> None:
    """A mailbox is forgotten when its owner takes no more messages."""
    id, _ = msgspec.json.decode(entry.key.name, type=tuple[str, str])
    owner = read_promise(step, id)
    if owner is not None and owner.pending:
        step.records.put_entry(replace(entry, due_at=step.now + MAILBOX_LOOK_MS))
    else:
        step.records.remove_entry(entry.key)
