"""What it means that an entry is due (see `protocol/entries.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from kept.machine.background import LookAtEntry
from kept.machine.bulk import forget_finished
from kept.machine.effects import read_promise
from kept.machine.step import Step
from kept.protocol.entries import Dedupe, Entry, EntryKind, Lock


def look_at_entry(step: Step, due: LookAtEntry) -> None:
    """Does what the entry's kind wants at its instant; nothing before that."""
    entry = step.records.entry(due.key)
    if entry is None or entry.due_at is None or entry.due_at > step.now:
        return
    _WHEN_DUE.get(entry.key.kind, _forget)(step, entry)


def _forget(step: Step, entry: Entry) -> None:
    """Most entries are worth nothing any more."""
    step.records.remove_entry(entry.key)


def _lapse(step: Step, entry: Entry) -> None:
    """A lock whose lease is over is free; its fence stays, so that the next one is higher."""
    assert isinstance(entry.data, Lock)
    free = Lock(fence=entry.data.fence)
    step.records.put_entry(replace(entry, data=free, due_at=None))


def _forget_settled(step: Step, entry: Entry) -> None:
    """The window of a dedupe key is over. Where its promise is unsettled, settling lets it go."""
    assert isinstance(entry.data, Dedupe)
    promise = read_promise(step, entry.data.promise)
    if promise is not None and promise.pending:
        step.records.put_entry(replace(entry, due_at=None))
    else:
        step.records.remove_entry(entry.key)


_WHEN_DUE: Final[dict[EntryKind, Callable[[Step, Entry], None]]] = {
    EntryKind.LOCK: _lapse,
    EntryKind.DEDUPE: _forget_settled,
    EntryKind.BULK: forget_finished,
}
