"""What durable code may know and draw without asking anybody: the same in every replay."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple

from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseRecord


class Info(NamedTuple):
    """What is known of the work that runs. `attempt` counts its failures so far, plus one, and
    differs between replays. `parent` is who called it, None for what was started; `root` is what was
    started, perhaps itself. `deadline` is when its promise times out, None for never. `traceparent` is
    the W3C trace that it belongs to."""

    id: str
    attempt: int
    parent: str | None
    root: str
    deadline: datetime | None
    traceparent: str | None


def info_of(promise: PromiseRecord, attempt: int) -> Info:
    """What is known of the work that keeps a promise."""
    id, tags = promise.id, promise.tags
    parent = tags.get(tag.PARENT, id)
    return Info(
        id=id,
        attempt=attempt,
        parent=None if parent == id else parent,
        root=tags.get(tag.ORIGIN, id),
        deadline=None if promise.timeout_at >= NEVER_MS else instant_of(promise.timeout_at),
        traceparent=tags.get(tag.TRACE_PARENT),
    )


def instant_of(ms: float) -> datetime:
    """An instant in ms since the epoch, in UTC."""
    return datetime.fromtimestamp(ms / 1_000, UTC)


class Draws:
    """Randomness that a replay repeats: it follows from the promise's id and its creation."""

    def __init__(self, promise: PromiseRecord) -> None:
        self._seed = f"{promise.created_at} {promise.id}"
        self.random = Random(self._number("random"))
        self._uuids = 0

    def uuid(self) -> uuid.UUID:
        """The next one, of version 4 in form."""
        self._uuids += 1
        number = self._number(f"uuid {self._uuids}") >> 128
        return uuid.UUID(int=number, version=4)

    def _number(self, what: str) -> int:
        digest = hashlib.sha256(f"{what} {self._seed}".encode()).digest()
        return int.from_bytes(digest, "big")
