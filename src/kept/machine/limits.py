"""The limits of queues and their lanes (protocol B2): pause, concurrency, rate, depth.

What is running is counted by the store over the tasks that are acquired, so it cannot drift; starts
and waiting tasks are counted in entries, in the commit that makes the move, and only where a limit
asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from kept.machine.refusals import CONCURRENCY, PAUSED, RATE, Refusal
from kept.machine.step import Step
from kept.machine.working_set import WorkingSet
from kept.protocol.entries import (
    Depth,
    Entry,
    EntryData,
    EntryKey,
    EntryKind,
    LaneLimits,
    QueueSettings,
    RateLimit,
    Starts,
)
from kept.protocol.records import Task
from kept.protocol.storage import Reads, Slots

# Counts of starts are forgotten when their period is over, but not sooner than this.
FORGET_STARTS_MS: Final = 60_000
_DEFAULTS: Final = QueueSettings()
_NO_LIMITS: Final = LaneLimits()
_AT_CONCURRENCY: Final = Refusal(CONCURRENCY)


@lru_cache(maxsize=1_024)
def settings_key(queue: str) -> EntryKey:
    """The key of a queue's settings."""
    return EntryKey(EntryKind.QUEUE, queue)


@lru_cache(maxsize=1_024)
def depth_key(queue: str) -> EntryKey:
    """The key of the count of a queue's waiting tasks."""
    return EntryKey(EntryKind.DEPTH, queue)


def settings_of(records: WorkingSet, queue: str) -> QueueSettings:
    """What an operator said of a queue, or what holds where nobody said anything."""
    entry = records.entry(settings_key(queue))
    if entry is None:
        return _DEFAULTS
    assert isinstance(entry.data, QueueSettings)
    return entry.data


def limits_of(settings: QueueSettings, lane: str | None) -> LaneLimits:
    """What holds for one lane."""
    general = settings.lane or _NO_LIMITS
    named = settings.lanes.get(lane) if lane is not None else None
    if named is None:
        return general
    return LaneLimits(
        general.concurrency if named.concurrency is None else named.concurrency,
        general.rate if named.rate is None else named.rate,
        general.weight if named.weight is None else named.weight,
    )


def refusal_of(step: Step, task: Task) -> Refusal | None:
    """Why a task may not start now, if it may not."""
    if task.queue is None:
        return None
    settings = settings_of(step.records, task.queue)
    return queue_refusal(step, task.queue, settings) or lane_refusal(
        step, task.queue, settings, task.lane
    )


def queue_refusal(step: Step, queue: str, settings: QueueSettings) -> Refusal | None:
    """Why nothing of a queue may start now, if nothing may."""
    if settings.paused:
        return Refusal(PAUSED)
    if settings.concurrency is None and settings.rate is None:
        return None
    return _refusal(step, settings.concurrency, settings.rate, Slots(queue))


def lane_refusal(
    step: Step, queue: str, settings: QueueSettings, lane: str | None
) -> Refusal | None:
    """Why nothing of a lane may start now, if nothing may."""
    if lane is None or (settings.lane is None and not settings.lanes):
        return None
    limits = limits_of(settings, lane)
    if limits.concurrency is None and limits.rate is None:
        return None
    return _refusal(step, limits.concurrency, limits.rate, Slots(queue, lane))


def lanes_limits(queue: str, settings: QueueSettings, lanes: Iterable[str]) -> Reads:
    """What must be known of lanes to tell whether something of them may start now."""
    reads = Reads()
    if settings.lane is None and not settings.lanes:
        return reads
    for lane in lanes:
        limits = limits_of(settings, lane)
        slots = Slots(queue, lane)
        if limits.concurrency is not None:
            reads.slots.add(slots)
        if limits.rate is not None:
            reads.entries.add(rate_key(slots))
    return reads


def _refusal(
    step: Step, concurrency: int | None, rate: RateLimit | None, slots: Slots
) -> Refusal | None:
    if concurrency is not None and step.records.acquired(slots) >= concurrency:
        return _AT_CONCURRENCY
    if rate is None:
        return None
    entry = step.records.entry(rate_key(slots))
    opens_at = next_window(entry.data if entry is not None else None, rate, step.now)
    return None if opens_at is None else Refusal(RATE, opens_at)


def next_window(starts: EntryData | None, rate: RateLimit, now: int) -> int | None:
    """When (ms) a rate lets something start again, if it does not now; `starts` is its count."""
    since = now - now % rate.period
    is_used_up = isinstance(starts, Starts) and starts.since == since and starts.count >= rate.limit
    return since + rate.period if is_used_up else None


def count_start(step: Step, task: Task) -> None:
    """A task starts: counted where a rate is limited."""
    if task.queue is None:
        return
    settings = settings_of(step.records, task.queue)
    if settings.rate is not None:
        _count(step, rate_key(Slots(task.queue)), settings.rate)
    if settings.lane is None and not settings.lanes:
        return
    limits = limits_of(settings, task.lane)
    if limits.rate is not None and task.lane is not None:
        _count(step, rate_key(Slots(task.queue, task.lane)), limits.rate)


def rate_key(slots: Slots) -> EntryKey:
    """The key of the count of a queue's, or a lane's, starts."""
    if slots.lane is None:
        return EntryKey(EntryKind.QUEUE_RATE, slots.queue)
    name = msgspec.json.encode([slots.queue, slots.lane]).decode()
    return EntryKey(EntryKind.LANE_RATE, name)


def _starts(step: Step, key: EntryKey, rate: RateLimit) -> Starts:
    since = step.now - step.now % rate.period
    entry = step.records.entry(key)
    if entry is not None:
        assert isinstance(entry.data, Starts)
        if entry.data.since == since:
            return entry.data
    return Starts(since, 0)


def _count(step: Step, key: EntryKey, rate: RateLimit) -> None:
    before = _starts(step, key, rate)
    after = Starts(before.since, before.count + 1)
    forget_at = max(after.since + rate.period, step.now + FORGET_STARTS_MS)
    step.records.put_entry(Entry(key, after, forget_at))


def is_full(step: Step, queue: str) -> bool:
    """Whether a queue holds as many waiting tasks as it may."""
    settings = settings_of(step.records, queue)
    if settings.max_depth is None:
        return False
    entry = step.records.entry(depth_key(queue))
    assert entry is not None and isinstance(entry.data, Depth), queue
    return entry.data.waiting >= settings.max_depth


def count_depths(records: WorkingSet) -> None:
    """Keeps the counts of waiting tasks in step with what the step at hand did."""
    moves = records.depth_moves
    if not moves:
        return
    for queue, move in moves.items():
        key = depth_key(queue)
        entry = records.entry(key) if move else None
        if entry is not None:
            assert isinstance(entry.data, Depth)
            records.put_entry(Entry(key, Depth(entry.data.waiting + move)))
    moves.clear()
