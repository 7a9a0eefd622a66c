"""Firing of a schedule's past (protocol B10): the spans that are still to be done, and what is next."""

from __future__ import annotations

from itertools import islice, takewhile

from kept.machine.cron import instants_after
from kept.machine.step import Step
from kept.protocol.entries import Backfill, Entry, EntryKey, EntryKind, Span
from kept.protocol.limits import MAX_INSTANTS_PER_STEP
from kept.protocol.records import ScheduleRecord


def backfill_key(schedule_id: str) -> EntryKey:
    """What the entry of a schedule's backfill is known by."""
    return EntryKey(EntryKind.BACKFILL, schedule_id)


def spans_of(step: Step, schedule_id: str) -> tuple[Span, ...]:
    """What is still to be fired."""
    entry = step.records.entry(backfill_key(schedule_id))
    if entry is None:
        return ()
    assert isinstance(entry.data, Backfill)
    return entry.data.spans


def put_spans(step: Step, schedule_id: str, spans: tuple[Span, ...]) -> None:
    """Stores what is still to be fired; it goes on at once."""
    key = backfill_key(schedule_id)
    if spans:
        step.records.put_entry(Entry(key, Backfill(spans), step.now))
    else:
        step.records.remove_entry(key)


def next_instants(schedule: ScheduleRecord, span: Span) -> list[int]:
    """The first instants of a span, as many as one step fires."""
    following = islice(instants_after(schedule, span.since - 1), MAX_INSTANTS_PER_STEP)
    return list(takewhile(lambda instant: instant < span.until, following))


def go_past(step: Step, schedule_id: str, fired: list[int]) -> None:
    """The instants were fired; none means that the first span is done."""
    first, *others = spans_of(step, schedule_id)
    left = (Span(fired[-1] + 1, first.until), *others) if fired else tuple(others)
    put_spans(step, schedule_id, left)
