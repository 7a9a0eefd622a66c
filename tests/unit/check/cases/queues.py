"""Cases for the limits of queues: one row for each clause."""

from __future__ import annotations

from typing import Final

from kept.protocol.entries import (
    Depth,
    Entry,
    EntryData,
    EntryKey,
    EntryKind,
    LaneLimits,
    QueueSettings,
)
from kept.protocol.records import Task
from tests.unit.check.cases.records import Step, StepCase, acquired, state, waiting

IN_Q: Final = {"queue": "q", "lane": "l"}


def _step(
    kind: EntryKind, data: EntryData, *after: Task, before: tuple[Task, ...] = (waiting(**IN_Q),)
) -> Step:
    """From one waiting task to these, under an entry of the queue."""
    old, new = state(*before), state(*after)
    for each in (old, new):
        key = EntryKey(kind, "q")
        each.entries[key] = Entry(key, data)
    return Step(old, new)


def _limit(settings: QueueSettings, *after: Task) -> Step:
    return _step(EntryKind.QUEUE, settings, *after)


_TWO: Final = (acquired(**IN_Q), acquired("other", **IN_Q))
_APART: Final = (acquired(**IN_Q), acquired("other", queue="q", lane="m"))

QUEUES: Final = [
    StepCase(
        "preserved_paused_queue_starts_nothing",
        "a start in a paused queue",
        _limit(QueueSettings(paused=True), acquired(**IN_Q)),
        _limit(QueueSettings(), acquired(**IN_Q)),
    ),
    StepCase(
        "consistent_start_within_concurrency",
        "more than the queue may have",
        _limit(QueueSettings(concurrency=1), *_TWO),
        _limit(QueueSettings(concurrency=2), *_TWO),
    ),
    StepCase(
        "consistent_start_within_concurrency",
        "more than the lane may have",
        _limit(QueueSettings(lane=LaneLimits(concurrency=1)), *_TWO),
        _limit(QueueSettings(lane=LaneLimits(concurrency=1)), *_APART),
    ),
    StepCase(
        "consistent_start_within_concurrency",
        "more than a lane with a limit of its own may have",
        _limit(QueueSettings(lanes={"l": LaneLimits(concurrency=1)}), *_TWO),
        _limit(QueueSettings(lanes={"m": LaneLimits(concurrency=1)}), *_TWO, *_APART[1:]),
    ),
    StepCase(
        "consistent_depth_is_what_waits",
        "a count that is not the number",
        _step(EntryKind.DEPTH, Depth(1), acquired(**IN_Q)),
        _step(EntryKind.DEPTH, Depth(0), acquired(**IN_Q)),
    ),
]
