"""`app.schedule`: what a program says of when its functions start."""

from __future__ import annotations

from pathlib import Path

import pytest

import kept
from kept.client.connection import call
from kept.protocol import requests as r
from kept.protocol.records import Catchup, Overlap, ScheduleRecord
from kept.protocol.responses import SchedulePage, ScheduleResult
from kept.protocol.schedule_requests import SchedulePause, ScheduleTrigger
from tests.unit.sdk.site import eventually


async def stored(app: kept.App) -> dict[str, ScheduleRecord]:
    page = (await call(app.connection, r.ScheduleSearch())).data
    assert isinstance(page, SchedulePage)
    return {schedule.id: schedule for schedule in page.schedules}


async def test_a_function_with_several_schedules() -> None:
    """Each is put under its key with all that was said, and starts the function."""
    app = kept.App("memory://")
    ran: list[str] = []

    @app.schedule(every=3_600, key="hourly", args=("hour",), overlap="skip", jitter=0.5)
    @app.schedule(cron="30 2 * * *", zone="Europe/Berlin", catchup="last", kwargs={"what": "day"})
    @app.function(queue="reports")
    async def report(what: str) -> None:
        ran.append(what)

    async with app:
        schedules = await stored(app)
        hourly, daily = schedules["hourly"], schedules["report"]
        assert (hourly.every, hourly.overlap, hourly.jitter) == (3_600_000, Overlap.SKIP, 500)
        assert (daily.cron, daily.zone) == ("30 2 * * *", "Europe/Berlin")
        assert (daily.catchup, daily.overlap) == (Catchup.LAST, Overlap.ALLOW)
        assert daily.promise_tags["resonate:target"] == "queue://reports"
        for key in ("hourly", "report"):
            await call(app.connection, ScheduleTrigger(key))

        async def both() -> bool:
            return sorted(ran) == ["day", "hour"]

        await eventually(both)


async def test_a_deployment_changes_a_schedule_and_keeps_its_clock(tmp_path: Path) -> None:
    """Also a pause of an operator stays."""
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    records: list[ScheduleRecord] = []
    for version in (1, 2):
        app = kept.App(url)

        @app.function(version=version)
        async def report() -> None: ...

        app.schedule(every=3_600)(report)
        async with app:
            records.append((await stored(app))["report"])
            paused = (await call(app.connection, SchedulePause("report"))).data
            assert isinstance(paused, ScheduleResult)
    one, two = records
    assert (one.created_at, one.next_run_at) == (two.created_at, two.next_run_at)
    assert (one.paused, two.paused) == (False, True)
    assert [each.promise_tags["kept:function"] for each in records] == ["report@1", "report@2"]


def test_schedules_that_make_no_sense() -> None:
    """Both rhythms or none, the same key twice, something unregistered, arguments that do not fit."""
    app = kept.App("memory://")

    @app.function
    async def report(what: str) -> None: ...

    with pytest.raises(kept.ConfigurationError, match="either cron or every"):
        app.schedule()
    with pytest.raises(kept.ConfigurationError, match="either cron or every"):
        app.schedule(cron="* * * * *", every=1)
    with pytest.raises(kept.InvalidArgumentsError):
        app.schedule(every=1)(report)
    declare = app.schedule(every=1, args=("x",))
    declare(report)
    with pytest.raises(kept.ConfigurationError, match="another key"):
        declare(report)
    with pytest.raises(kept.ConfigurationError, match=r"above @app\.function"):
        declare(print)  # type: ignore[type-var]


async def test_a_schedule_that_the_engine_refuses_stops_the_start() -> None:
    """And the app can be opened again once it is right."""
    app = kept.App("memory://")

    @app.schedule(cron="not a cron")
    @app.function
    async def report() -> None: ...

    for _ in range(2):
        with pytest.raises(kept.KeptError, match="cron"):
            await app.open()
