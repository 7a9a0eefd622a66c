"""B10: rhythms, zones, overlap, catching up, triggers and backfills."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.blackbox.server import Server, fresh

HOUR = 3_600_000


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


@pytest.fixture
def clock(server: Server) -> Server:
    """In a year of its own: time never goes back."""
    now = datetime.fromtimestamp((server.now or 0) / 1_000, UTC)
    server.now = _ms(f"{max(now.year + 1, 2026)}-01-01")
    return server


def _put(server: Server, id: str, **fields: Any) -> Any:
    stamped = {"id": id, "promiseId": id + ".{{.timestamp}}", "promiseTimeout": 48 * HOUR}
    return server.ask("schedule.put", **{**stamped, **fields})


def _fired(server: Server, id: str) -> list[int]:
    """The instants of what it fired, in order."""
    found = server.ok("promise.search", tags={"resonate:schedule": id}, limit=1_000)
    return sorted(promise["createdAt"] for promise in found["promises"])


@pytest.mark.parametrize(
    ("cron", "since", "until", "fired"),
    [
        # Clocks jump from 2 to 3: what falls into the gap fires once, at its end.
        ("30 2 * * *", "03-28T00:00", "03-31T00:00", ["28T01:30", "29T01:00", "30T00:30"]),
        # They go back from 3 to 2: a fixed time fires the first time only,
        ("30 2 * * *", "10-24T12:00", "10-26T00:00", ["25T00:30"]),
        # and what is a star fires in both.
        (
            "*/30 2 * * *",
            "10-24T12:00",
            "10-26T00:00",
            ["25T00:00", "25T00:30", "25T01:00", "25T01:30"],
        ),
    ],
)
def test_clocks_that_change(
    server: Server, cron: str, since: str, until: str, fired: list[str]
) -> None:
    """In Berlin, in years whose changes are on these days."""
    id = fresh("schedule")
    now = datetime.fromtimestamp((server.now or 0) / 1_000, UTC)
    # The 29th of March and the 25th of October are Sundays.
    year = next(
        y for y in range(now.year + 1, 9_999) if datetime(y, 3, 29, tzinfo=UTC).weekday() == 6
    )
    server.now = _ms(f"{year}-{since}")
    assert _put(server, id, cron=cron, zone="Europe/Berlin")[0] == 200
    server.now = _ms(f"{year}-{until}")
    server.tick()
    month = since.partition("-")[0]
    assert _fired(server, id) == [_ms(f"{year}-{month}-{instant}") for instant in fired]
    server.ok("schedule.delete", id=id)


def test_a_period_is_counted_from_the_creation(clock: Server) -> None:
    """Each instant once, as of itself; a put of the same rhythm leaves the clock alone."""
    id = fresh("schedule")
    start = clock.now or 0
    assert _put(clock, id, every=1_500)[1]["schedule"]["nextRunAt"] == start + 1_500
    clock.tick(1_499)
    assert _fired(clock, id) == []
    clock.tick(1)
    clock.tick(4_501)
    assert _fired(clock, id) == [start + 1_500 * n for n in (1, 2, 3, 4)]
    clock.pass_time(700)
    for fields in ({}, {"promiseTimeout": 5}, {"overlap": "skip"}):
        assert _put(clock, id, every=1_500, **fields)[1]["schedule"]["nextRunAt"] == start + 7_500
    assert _put(clock, id, every=2_000)[1]["schedule"]["nextRunAt"] == start + 8_000
    clock.ok("schedule.delete", id=id)
    assert [clock.status(f"schedule.{verb}", id=id) for verb in ("get", "delete")] == [404, 404]


@pytest.mark.parametrize(
    ("catchup", "paused", "stood_still"),
    [("all", [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]), ("last", [5], [5]), ("none", [], [3, 4, 5])],
)
def test_what_was_missed(
    clock: Server, catchup: str, paused: list[int], stood_still: list[int]
) -> None:
    """By a pause, and by a standstill: of that, `none` fires what is less than a minute late."""
    for pauses, expected in ((True, paused), (False, stood_still)):
        id = fresh("schedule")
        start = clock.now or 0
        _put(clock, id, every=20_000, catchup=catchup)
        if pauses:
            clock.ok("schedule.pause", id=id)
        clock.tick(119_999 if not pauses else 110_000)
        if pauses:
            assert _fired(clock, id) == []
            clock.ok("schedule.resume", id=id)
            clock.tick()
        assert _fired(clock, id) == [start + 20_000 * n for n in expected], pauses
        clock.ok("schedule.delete", id=id)


def test_what_overlaps(clock: Server) -> None:
    """It is fired all the same, or left out until what fired last is settled."""
    for overlap, fired in (("allow", [1, 2, 3]), ("skip", [1])):
        id = fresh("schedule")
        start = clock.now or 0
        tags = {"resonate:target": f"queue://{id}"}
        _put(clock, id, every=1_000, overlap=overlap, promiseTags=tags)
        clock.tick(3_500)
        assert _fired(clock, id) == [start + 1_000 * n for n in fired]
        for job in clock.claimed(id):
            clock.fulfill(job, 1)
        clock.tick(600)
        assert _fired(clock, id) == [start + 1_000 * n for n in (*fired, 4)]
        clock.ok("schedule.delete", id=id)


def test_what_overlaps_waits_in_line(live: Server) -> None:
    """And is fired when what is before it is settled, as of then."""
    id = fresh("schedule")
    tags = {"resonate:target": f"queue://{id}"}
    _put(live, id, every=1_000, overlap="queue", promiseTags=tags)
    jobs = []
    for _ in range(3):
        (lease,) = live.claim(id, wait=10_000)
        assert live.claim(id) == []
        jobs.append(lease["promise"])
        live.fulfill(lease["task"]["id"], 1)
    stamps = [int(job["id"].rpartition(".")[2]) for job in jobs]
    assert [later - earlier for earlier, later in itertools.pairwise(stamps)] == [1_000] * 2
    assert all(job["createdAt"] >= stamp for job, stamp in zip(jobs, stamps, strict=True))
    live.ok("schedule.delete", id=id)


def test_jitter_delays_the_work(clock: Server) -> None:
    """Less than its bound, not always the same; the promise is of its instant."""
    id = fresh("schedule")
    start = clock.now or 0
    tags = {"resonate:target": f"queue://{id}"}
    _put(clock, id, every=1_000, jitter=500, promiseTags=tags)
    clock.tick(10_000)
    found = clock.ok("promise.search", tags={"resonate:schedule": id}, limit=100)["promises"]
    assert {each["createdAt"] for each in found} == {start + 1_000 * n for n in range(1, 11)}
    late = {int(each["tags"]["resonate:delay"]) - each["createdAt"] for each in found}
    assert len(late) > 1
    assert 0 <= min(late) <= max(late) <= 500
    clock.ok("schedule.delete", id=id)


def test_a_trigger_fires_once_for_its_key(clock: Server) -> None:
    """Paused or not; the rhythm goes on as if nothing had happened."""
    id = fresh("schedule")
    schedule = _put(clock, id, every=HOUR, promiseTags={"own": "tag"}, paused=True)[1]["schedule"]
    fired = [clock.ok("schedule.trigger", id=id, key="k")["promise"] for _ in range(2)]
    assert fired[0] == fired[1]
    assert fired[0]["id"] == f"{id}.trigger.k"
    assert (fired[0]["tags"]["own"], fired[0]["tags"]["resonate:schedule"]) == ("tag", id)
    head = {"kept:request": fresh("r")}
    again = [clock.ok("schedule.trigger", head, id=id)["promise"]["id"] for _ in range(2)]
    others = [clock.ok("schedule.trigger", id=id)["promise"]["id"] for _ in range(2)]
    assert again[0] == again[1]
    assert len({*again, *others}) == 3
    assert clock.ok("schedule.get", id=id)["schedule"]["nextRunAt"] == schedule["nextRunAt"]
    assert clock.status("schedule.trigger", id="nobody") == 404
    clock.ok("schedule.delete", id=id)


def test_a_backfill_fires_each_instant_once(live: Server) -> None:
    """From `from` on and before `to`; asked again it fires nothing more."""
    id = fresh("schedule")
    _put(live, id, cron="0 0 1 1 *")
    since, until = _ms("2001-01-01"), _ms("2021-01-01")
    for _ in range(2):
        live.ok("schedule.backfill", id=id, **{"from": since, "to": until})
    while len(_fired(live, id)) < 20:
        pass
    live.ok("schedule.backfill", id=id, **{"from": until, "to": until + 1})
    while len(_fired(live, id)) < 21:
        pass
    found = live.ok("promise.search", tags={"resonate:schedule": id}, limit=100)["promises"]
    stamps = sorted(int(each["id"].rpartition(".")[2]) for each in found)
    assert stamps == [_ms(f"{year}-01-01") for year in range(2001, 2022)]
    assert live.status("schedule.backfill", id=id, **{"from": 2, "to": 1}) == 400
    assert live.status("schedule.backfill", id="nobody", **{"from": 1, "to": 2}) == 404
    live.ok("schedule.delete", id=id)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cron": "* * * * *", "every": 1_000},
        {"every": 999},
        {"cron": "61 * * * *"},
        {"cron": "0 0 30 2 *"},
        {"cron": "* * * * *", "zone": "Mars/Olympus"},
        {"every": 1_000, "zone": "Mars/Olympus"},
        {"cron": "* * * * *", "jitter": 5},
        {"every": 1_000, "overlap": "perhaps"},
        {"every": 1_000, "catchup": "some"},
        {"every": 1_000, "promiseTags": {"kept:attempts": "0"}},
        {"every": 1_000, "promiseTags": {"kept:dedupe": "k"}},
    ],
)
def test_what_is_no_schedule_is_refused(server: Server, fields: dict[str, Any]) -> None:
    """Nothing of it is stored."""
    id = fresh("schedule")
    assert _put(server, id, **fields)[0] == 400
    assert server.status("schedule.get", id=id) == 404
