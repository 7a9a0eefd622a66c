"""What the requests of a batch did, noted for whoever counts it (docs/operations.md, Metrics).

No rule reads this. What is undone is not told: an event is seen with the commit that it is part of.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from kept.protocol.entries import EntryKey, EntryKind
from kept.protocol.records import DeadLetter, Task


class TaskMoved(NamedTuple):
    """A task is in another state, or has another version or count of failures."""

    before: Task | None
    after: Task


class LetterFiled(NamedTuple):
    """Work was given up on."""

    letter: DeadLetter


class KeyHit(NamedTuple):
    """A create met the holder of its key, or a promise of its own id (`kind` None)."""

    kind: EntryKind | None


class Granted(NamedTuple):
    """A lock or a slot was given to a holder, who had a place in line or not."""

    key: EntryKey
    holder: str
    had_place: bool


class Conflicted(NamedTuple):
    """A lock or a slot was refused to a holder, who waits from now on or not."""

    key: EntryKey
    holder: str
    waits: bool


class HeartbeatLost(NamedTuple):
    """A heartbeat came for a lease that is not the caller's any more."""

    reason: str


Event: TypeAlias = TaskMoved | LetterFiled | KeyHit | Granted | Conflicted | HeartbeatLost
