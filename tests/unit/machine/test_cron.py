"""The instants of schedules: calendars, time zones, periods (protocol A4, B10)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kept.machine.cron import instants_after, last_instant, next_instant
from kept.protocol.records import EMPTY, ScheduleRecord

BERLIN = "Europe/Berlin"
MINUTE = 60_000


def schedule(
    cron: str = "", *, zone: str | None = None, every: int | None = None
) -> ScheduleRecord:
    return ScheduleRecord("s", cron, "p", 1, EMPTY, {}, 0, 0, every=every, zone=zone)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000


def spoken(instants: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(at / 1_000, ZoneInfo(zone)).isoformat() for at in instants]


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # The clocks jump from 02:00 to 03:00: once, at the end of the gap.
        (
            "30 2 * * *",
            "2026-03-28T03:00:00+01:00",
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        ),
        # Those that would coincide there are one.
        (
            "0,30 2,3 * * *",
            "2026-03-29T00:00:00+01:00",
            ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"],
        ),
        # The hour from 02:00 to 03:00 comes twice: the first time only.
        (
            "30 2 * * *",
            "2026-10-24T03:00:00+02:00",
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
        ),
        # But what runs every hour runs in both.
        (
            "30 * * * *",
            "2026-10-25T01:00:00+02:00",
            [
                "2026-10-25T01:30:00+02:00",
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T02:30:00+01:00",
                "2026-10-25T03:30:00+01:00",
            ],
        ),
        # Asked in the second of the doubled hours, the first is over.
        ("30 2 * * *", "2026-10-25T02:10:00+01:00", ["2026-10-26T02:30:00+01:00"]),
    ],
)
def test_days_on_which_clocks_are_changed(cron: str, after: str, expected: list[str]) -> None:
    """What falls into a gap or into a doubled hour fires exactly once."""
    found = list(islice(instants_after(schedule(cron, zone=BERLIN), ms(after)), len(expected)))
    assert spoken(found, BERLIN) == expected


RHYTHMS = st.builds(
    lambda minute, hour, day: f"{minute} {hour} {day} * *",
    st.sampled_from(["*", "0", "30", "*/15", "5,50"]),
    st.sampled_from(["*", "2", "3", "*/2", "1-3", "0"]),
    st.sampled_from(["*", "1", "29", "25-29", "31"]),
)
# Around both changes of 2026, in zones that change at other times or never. Not Lord Howe Island, whose
# clocks change by half an hour: cronsim then loses up to half an hour of a starred expression.
ZONES = st.sampled_from([BERLIN, "America/New_York", "Australia/Sydney", "Asia/Kolkata", "UTC"])
STARTS = st.sampled_from(["2026-03-06", "2026-03-27", "2026-04-03", "2026-10-02", "2026-10-23"])


def field(text: str, value: int) -> bool:
    """Whether a field of an expression has a value in it: the naive reading."""
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            if value % int(step or 1) == 0:
                return True
        elif int(low) <= value <= int(high or low):
            return True
    return False


def naive(cron: str, zone: str, since: int, until: int) -> set[int]:
    """Every minute of the span that exists and is not doubled, held against the expression."""
    minute, hour, day, *_ = cron.split()
    found: set[int] = set()
    for at in range(since + MINUTE, until, MINUTE):
        local = datetime.fromtimestamp(at / 1_000, ZoneInfo(zone))
        if field(minute, local.minute) and field(hour, local.hour) and field(day, local.day):
            found.add(at)
    return found


def is_plain(at: int, zone: str) -> bool:
    """Whether no clock was changed within a few hours."""
    here = ZoneInfo(zone)
    moment = datetime.fromtimestamp(at / 1_000, UTC)
    spans = {(moment + timedelta(hours=h)).astimezone(here).utcoffset() for h in range(-3, 4)}
    return len(spans) == 1


@given(RHYTHMS, ZONES, STARTS)
def test_a_calendar_agrees_with_looking_at_every_minute(cron: str, zone: str, day: str) -> None:
    """But around changed clocks, where each wall time fires at most once more or less."""
    since = ms(f"{day}T00:00:00+00:00")
    until = since + 4 * 24 * 60 * MINUTE
    found: list[int] = []
    for at in instants_after(schedule(cron, zone=zone), since):
        if at >= until:
            break
        found.append(at)
    assert found == sorted(set(found))
    wanted = naive(cron, zone, since, until)
    assert {at for at in found if is_plain(at, zone)} == {at for at in wanted if is_plain(at, zone)}


@given(RHYTHMS, ZONES, STARTS, st.integers(0, 4 * 24 * 60))
def test_where_one_begins_to_look_changes_nothing(
    cron: str, zone: str, day: str, minutes: int
) -> None:
    """The next after each instant, asked one by one, is what one look at all of them shows; and the
    last before an instant is the last of them."""
    since = ms(f"{day}T00:00:00+00:00")
    plan = schedule(cron, zone=zone)
    whole = list(islice(instants_after(plan, since), 60))
    at: int | None = since
    single: list[int] = []
    while len(single) < len(whole):
        assert at is not None
        at = next_instant(plan, at)
        assert at is not None
        single.append(at)
    assert single == whole
    until = since + minutes * MINUTE
    if until < whole[-1]:
        before = [at for at in whole if at <= until]
        assert last_instant(plan, since, until) == (before[-1] if before else None)


@given(st.integers(1_000, 10**8), st.integers(0, 10**12))
def test_periods(every: int, after: int) -> None:
    """Multiples from the creation on, never the creation itself."""
    first = next_instant(schedule(every=every), after)
    assert first is not None
    assert first % every == 0
    assert after < first <= max(after, 0) + every
    assert last_instant(schedule(every=every), 0, first) == first


def test_the_end_of_the_calendar() -> None:
    """Beyond the year 9999 nothing fires, and no day that never comes is looked for forever."""
    assert next_instant(schedule("0 0 1 1 *"), ms("9999-06-01T00:00:00+00:00")) is None
    assert next_instant(schedule(every=10**15), 9 * 10**15) is None
