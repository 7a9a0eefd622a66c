"""The requests that go beyond `schedule.create` (protocol B10)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from kept.protocol.limits import MAX_INTEGER, MIN_EVERY_MS
from kept.protocol.records import EMPTY, Catchup, Overlap, Value
from kept.protocol.requests import Id, Instant, Request


class SchedulePut(Request):
    """Creates a schedule or changes it, which keeps its clock. Exactly one of `cron` and `every`
    (ms). What is absent is the default; but for `paused`, which stays as it is."""

    kind: ClassVar[str] = "schedule.put"
    id: Id
    promise_id: Id
    promise_timeout: Instant
    cron: str | None = None
    every: Annotated[int, Meta(ge=MIN_EVERY_MS, le=MAX_INTEGER)] | None = None
    zone: str | None = None
    jitter: Instant = 0
    overlap: Overlap = Overlap.ALLOW
    catchup: Catchup = Catchup.ALL
    paused: bool | None = None
    promise_param: Value = EMPTY
    promise_tags: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it


class SchedulePause(Request):
    kind: ClassVar[str] = "schedule.pause"
    id: Id


class ScheduleResume(Request):
    kind: ClassVar[str] = "schedule.resume"
    id: Id


class ScheduleTrigger(Request):
    """Fires now. The same `key` fires once."""

    kind: ClassVar[str] = "schedule.trigger"
    id: Id
    key: Id | None = None


class ScheduleBackfill(Request):
    """Fires each instant from `from` on and before `to` (ms) that was not fired."""

    kind: ClassVar[str] = "schedule.backfill"
    id: Id
    since: Instant = msgspec.field(name="from")
    until: Instant = msgspec.field(name="to")


SCHEDULE_REQUESTS: Final[tuple[type[Request], ...]] = (
    SchedulePut,
    SchedulePause,
    ScheduleResume,
    ScheduleTrigger,
    ScheduleBackfill,
)
