"""The instants of a schedule and the ids of what it fires (protocol A4, B10)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from kept.protocol.limits import MAX_INTEGER
from kept.protocol.records import ScheduleRecord

MS_PER_SECOND = 1_000


def instants_after(schedule: ScheduleRecord, after_ms: int) -> Iterator[int]:
    """The instants (ms) of a schedule strictly after `after_ms`, in order; ends where it never fires
    again. Raises `ValueError` for what is not an expression or a zone."""
    if schedule.every is not None:
        return _every(schedule.created_at, schedule.every, after_ms)
    return _cron(schedule.cron, schedule.zone, after_ms)


def next_instant(schedule: ScheduleRecord, after_ms: int) -> int | None:
    """The first instant after `after_ms`; None where it never fires again."""
    return next(instants_after(schedule, after_ms), None)


def last_instant(schedule: ScheduleRecord, after_ms: int, until_ms: int) -> int | None:
    """The last instant after `after_ms` and not after `until_ms`, in few steps however many there
    are in between."""
    found = next_instant(schedule, after_ms)
    if found is None or found > until_ms:
        return None
    low, high = found - 1, until_ms
    while high - low > 1:
        middle = (low + high) // 2
        later = next_instant(schedule, middle)
        if later is not None and later <= until_ms:
            found, low = later, max(middle, later - 1)
        else:
            high = middle
    return found


def _every(since: int, every: int, after_ms: int) -> Iterator[int]:
    """Counted from the creation, so that no change and no late firing shifts them."""
    instant = since + max((after_ms - since) // every + 1, 1) * every
    while instant < MAX_INTEGER:
        yield instant
        instant += every


def _cron(cron: str, zone: str | None, after_ms: int) -> Iterator[int]:
    """Five fields, or six with seconds first, on the clocks of `zone`, or in UTC.

    Where clocks jump forward, what falls into the gap fires once, at its end. Where they go back,
    what falls into the doubled hour fires the first time only, unless its hour or minute is a star.
    """
    try:
        start = datetime.fromtimestamp(after_ms // MS_PER_SECOND, _zone(zone))
        for occurrence in CronSim(cron, start):
            instant = int(occurrence.timestamp()) * MS_PER_SECOND
            # In the second of two doubled hours the first one's instants are found again.
            if instant > after_ms:
                yield instant
    except CronSimError as error:
        raise ValueError(f"cron: {error}") from None
    except OverflowError:
        # Beyond the year 9999 there is no calendar.
        return


def _zone(name: str | None) -> tzinfo:
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"zone: {name[:200]!r} is not a time zone that is known here") from None


def expand(template: str, schedule_id: str, stamp: int | str) -> str:
    """The id of the promise that a schedule fires at an instant."""
    expanded = template.replace("{{.timestamp}}", str(stamp))
    return expanded.replace("{{.id}}", schedule_id)
