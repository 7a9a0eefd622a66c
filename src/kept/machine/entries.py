"""What it means that an entry is due (see `protocol/entries.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from kept.machine.background import LeaveLine, LookAtEntry
from kept.machine.buckets import look_at_bucket
from kept.machine.bulk import forget_finished
from kept.machine.cancellation import look_at_cancellation
from kept.machine.effects import read_promise
from kept.machine.locks import leave_lock, look_at_lock
from kept.machine.mailboxes import look_at_mailbox
from kept.machine.schedules import look_at_line
from kept.machine.slots import leave_slots, look_at_slots
from kept.machine.step import Step
from kept.protocol.entries import Dedupe, Entry, EntryKey, EntryKind

# Stops what was asked to stop in vain, and goes on to descendants (B3).
CANCEL_SPREAD: Final = "promise.cancel.spread"


def look_at_entry(step: Step, due: LookAtEntry) -> None:
    """Does what the entry's kind wants at its instant; nothing before that."""
    entry = step.records.entry(due.key)
    if entry is None or entry.due_at is None or entry.due_at > step.now:
        return
    _WHEN_DUE.get(entry.key.kind, _forget)(step, entry)


def step_name(due: LookAtEntry) -> str:
    """What the step is called for those who watch."""
    return CANCEL_SPREAD if due.key.kind is EntryKind.CANCEL else "entry.due"


def leave_line(step: Step, gone: LeaveLine) -> None:
    """One that waited for a lock or a slot is gone, and its place goes to the next."""
    _WHEN_LEFT[gone.key.kind](step, gone.key, gone.holder)


def _forget(step: Step, entry: Entry) -> None:
    """Most entries are worth nothing any more."""
    step.records.remove_entry(entry.key)


def _forget_settled(step: Step, entry: Entry) -> None:
    """The window of a dedupe key is over. Where its promise is unsettled, settling lets it go."""
    assert isinstance(entry.data, Dedupe)
    promise = read_promise(step, entry.data.promise)
    if promise is not None and promise.pending:
        step.records.put_entry(replace(entry, due_at=None))
    else:
        step.records.remove_entry(entry.key)


_WHEN_DUE: Final[dict[EntryKind, Callable[[Step, Entry], None]]] = {
    EntryKind.CANCEL: look_at_cancellation,
    EntryKind.MAILBOX: look_at_mailbox,
    EntryKind.DEDUPE: _forget_settled,
    EntryKind.BULK: forget_finished,
    EntryKind.LOCK: look_at_lock,
    EntryKind.SLOTS: look_at_slots,
    EntryKind.BUCKET: look_at_bucket,
    EntryKind.SCHEDULE_LINE: look_at_line,
}

_WHEN_LEFT: Final[dict[EntryKind, Callable[[Step, EntryKey, str], None]]] = {
    EntryKind.LOCK: leave_lock,
    EntryKind.SLOTS: leave_slots,
}
