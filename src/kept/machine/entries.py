"""What it means that an entry is due (see `protocol/entries.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kept.machine.background import LeaveLine, LookAtEntry
from kept.machine.buckets import look_at_bucket
from kept.machine.cancellation import look_at_cancellation
from kept.machine.locks import leave_lock, look_at_lock
from kept.machine.mailboxes import look_at_mailbox
from kept.machine.schedules import look_at_line
from kept.machine.slots import leave_slots, look_at_slots
from kept.machine.step import Step
from kept.protocol.entries import Entry, EntryKey, EntryKind

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


_WHEN_DUE: Final[dict[EntryKind, Callable[[Step, Entry], None]]] = {
    EntryKind.CANCEL: look_at_cancellation,
    EntryKind.MAILBOX: look_at_mailbox,
    EntryKind.LOCK: look_at_lock,
    EntryKind.SLOTS: look_at_slots,
    EntryKind.BUCKET: look_at_bucket,
    EntryKind.SCHEDULE_LINE: look_at_line,
}

_WHEN_LEFT: Final[dict[EntryKind, Callable[[Step, EntryKey, str], None]]] = {
    EntryKind.LOCK: leave_lock,
    EntryKind.SLOTS: leave_slots,
}
