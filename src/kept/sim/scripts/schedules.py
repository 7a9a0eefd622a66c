"""A script about schedules."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import Value
from kept.protocol.responses import PromiseResult, SchedulePage, ScheduleResult
from kept.sim.scripts.script import Script

_MINUTE_MS = 60_000


async def life(s: Script) -> None:
    """Made once, found, fired at its instants, deleted."""
    id = s.id("schedule")
    label = {"label": s.key, tag.EXTERNAL: "true"}
    param = Value(data="of a schedule")

    def create(cron: str, name: str = id) -> r.ScheduleCreate:
        return r.ScheduleCreate(name, cron, "{{.id}}-{{.timestamp}}", 5_000, param, label)

    for cron in ("", "* * *", "61 * * * *", "a b c d e", "* * 31 2 *"):
        await s.ask(create(cron), 400)
    await s.ask(r.ScheduleGet(id), 404)
    await s.ask(r.ScheduleDelete(id), 404)
    made = await s.data(create("* * * * *"), ScheduleResult)
    schedule = made.schedule
    again = (await s.data(create("*/30 * * * * *"), ScheduleResult)).schedule
    # It may have fired in between.
    s.same("made again", (again.id, again.cron, again.created_at, again.promise_param),
           (id, schedule.cron, schedule.created_at, param))  # fmt: skip
    s.same(
        "fires", schedule.next_run_at, schedule.created_at // _MINUTE_MS * _MINUTE_MS + _MINUTE_MS
    )
    found = await s.data(r.ScheduleSearch(tags={"label": s.key}), SchedulePage)
    s.same("found", [each.id for each in found.schedules], [id])
    if s.exact and s.random.random() < 0.3:
        await s.runtime.sleep((schedule.next_run_at - s.runtime.now_ms()) / 1_000 + 0.5)
        fired = f"{id}-{schedule.next_run_at}"
        promise = (await s.data(r.PromiseWait(fired, 20_000), PromiseResult)).promise
        s.same("fired", (promise.created_at, promise.timeout_at, promise.param),
               (schedule.next_run_at, schedule.next_run_at + 5_000, param))  # fmt: skip
        lineage = dict.fromkeys((tag.ORIGIN, tag.BRANCH, tag.PARENT), fired)
        s.same("tags", promise.tags, {**label, **lineage, tag.SCHEDULE: id})
    await s.ask(r.ScheduleDelete(id))
    await s.ask(r.ScheduleGet(id), 404)
    found = await s.data(r.ScheduleSearch(tags={"label": s.key}), SchedulePage)
    s.same("found", found.schedules, [])
