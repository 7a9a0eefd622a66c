"""What the requests of a batch did, noted for whoever counts it (docs/operations.md, Metrics).

No rule reads this. What is undone is not told: an event is seen with the commit that it is part of.
There are several for each job, so they stay out of the garbage collector's sight, as records do.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from kept.protocol.entries import EntryKey, EntryKind
from kept.protocol.records import DeadLetter, Task


class TaskMoved(msgspec.Struct, gc=False):
    """A task is in another state, or has another version or count of failures."""

    before: Task | None
    after: Task


class LetterFiled(msgspec.Struct, gc=False):
    """Work was given up on."""

    letter: DeadLetter


class KeyHit(msgspec.Struct, gc=False):
    """A create met the holder of its key, or a promise of its own id (`kind` None)."""

    kind: EntryKind | None


class Granted(msgspec.Struct, gc=False):
    """A lock or a slot was given to a holder, who had a place in line or not."""

    key: EntryKey
    holder: str
    had_place: bool


class Conflicted(msgspec.Struct, gc=False):
    """A lock or a slot was refused to a holder, who waits from now on or not."""

    key: EntryKey
    holder: str
    waits: bool


class HeartbeatLost(msgspec.Struct, gc=False):
    """A heartbeat came for a lease that is not the caller's any more."""

    reason: str


Event: TypeAlias = TaskMoved | LetterFiled | KeyHit | Granted | Conflicted | HeartbeatLost
