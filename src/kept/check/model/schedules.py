"""The requests on schedules, and what a schedule does when it is due (A4, A5 step 6).

Not judged: `schedule.put` and the rest of B10. No history that is judged may have them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from cronsim import CronSim, CronSimError

from kept.check.model import validation as v
from kept.check.model.promises import has_tags, page
from kept.check.model.state import JsonObject, Refused, State, create

MAX_INSTANTS_PER_STEP = 100


@cache
def next_instant(cron: str, after: int) -> int:
    """The first instant (ms) of the expression that is later than `after`."""
    start = datetime.fromtimestamp(after // 1000, UTC)
    return int(next(CronSim(cron, start)).timestamp()) * 1000


def existing(state: State, id: str) -> JsonObject:
    if id not in state.schedules:
        raise Refused(404, "no such schedule")
    return state.schedules[id]


def schedule_record(schedule: JsonObject) -> JsonObject:
    return {name: value for name, value in schedule.items() if value is not None}


def schedule_create(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    v.check_id(data, "promiseId")
    v.check_whole(data, "promiseTimeout", 0)
    v.check_payload(data, "promiseParam")
    v.check_tags(data.get("promiseTags", {}), "promiseTags")
    v.check_no_keys(data.get("promiseTags", {}), "promiseTags")
    v.demand(isinstance(data.get("cron"), str), "cron: not a text")
    try:
        instant = next_instant(data["cron"], now)
    except (CronSimError, StopIteration):
        raise Refused(400, "cron: invalid") from None
    if data["id"] not in state.schedules:
        state.schedules[data["id"]] = {
            "id": data["id"],
            "cron": data["cron"],
            "promiseId": data["promiseId"],
            "promiseTimeout": data["promiseTimeout"],
            "promiseParam": dict(data.get("promiseParam", {})),
            "promiseTags": dict(data.get("promiseTags", {})),
            "createdAt": now,
            "nextRunAt": instant,
            "lastRunAt": None,
        }
    return {"schedule": schedule_record(state.schedules[data["id"]])}


def schedule_get(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    return {"schedule": schedule_record(existing(state, data["id"]))}


def schedule_delete(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    existing(state, data["id"])
    del state.schedules[data["id"]]
    return {}


def schedule_search(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_search(data, ())
    records = [schedule_record(schedule) for schedule in state.schedules.values()]
    records = [record for record in records if has_tags(record["promiseTags"], data)]
    return page(records, "schedules", data)


def fire(state: State, schedule: JsonObject, now: int) -> None:
    """One step: each due instant in order, a hundred of them at most."""
    for _ in range(MAX_INSTANTS_PER_STEP):
        instant = schedule["nextRunAt"]
        if instant > now:
            return
        id = schedule["promiseId"].replace("{{.id}}", schedule["id"])
        id = id.replace("{{.timestamp}}", str(instant))
        own = {"resonate:schedule": schedule["id"]}
        own |= {f"resonate:{name}": id for name in ("origin", "branch", "parent")}
        promise = {
            "id": id,
            "timeoutAt": instant + schedule["promiseTimeout"],
            "param": schedule["promiseParam"],
            "tags": schedule["promiseTags"] | own,
        }
        create(state, promise, instant)
        schedule["lastRunAt"] = instant
        schedule["nextRunAt"] = next_instant(schedule["cron"], instant)
