"""The line of a schedule that does not overlap itself (protocol B10): what it fired last, and the
instants that wait until that is settled."""

from __future__ import annotations

from typing import Final

from kept.machine.step import Step
from kept.protocol import tags as tag
from kept.protocol.entries import Entry, EntryKey, EntryKind, ScheduleLine
from kept.protocol.records import Promise

NOBODY: Final = ScheduleLine("")


def line_key(schedule_id: str) -> EntryKey:
    """What the entry of a schedule's line is known by."""
    return EntryKey(EntryKind.SCHEDULE_LINE, schedule_id)


def line_of(step: Step, schedule_id: str) -> ScheduleLine:
    """The line, or an empty one."""
    entry = step.records.entry(line_key(schedule_id))
    if entry is None:
        return NOBODY
    assert isinstance(entry.data, ScheduleLine)
    return entry.data


def put_line(step: Step, schedule_id: str, line: ScheduleLine, due_at: int | None = None) -> None:
    """Stores a line, which is looked at at `due_at` (ms)."""
    step.records.put_entry(Entry(line_key(schedule_id), line, due_at))


def line_behind(step: Step, promise: Promise) -> str | None:
    """The schedule whose line goes on when the promise is settled."""
    schedule_id = promise.tags.get(tag.SCHEDULE)
    if schedule_id is None:
        return None
    line = line_of(step, schedule_id)
    return schedule_id if line.last == promise.id and line.waiting else None


def go_on(step: Step, schedule_id: str) -> None:
    """The line is looked at now, in a step of its own."""
    line = line_of(step, schedule_id)
    if line.waiting:
        put_line(step, schedule_id, line, step.now)
