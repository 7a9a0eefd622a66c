"""The requests on promises (A4)."""

from __future__ import annotations

from kept.check.model import validation as v
from kept.check.model.duplicates import create_under_keys
from kept.check.model.state import (
    JsonObject,
    Refused,
    State,
    is_external,
    is_live,
    is_targeted,
    promise_record,
    settle,
)


def promise_get(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    promise = existing(state, data["id"])
    answer = {"promise": promise_record(promise, now)}
    return answer | promise.get("said", {"attributes": {}}) if data.get("attributes") else answer


def existing(state: State, id: str) -> JsonObject:
    if id not in state.promises:
        raise Refused(404, "no such promise")
    return state.promises[id]


def promise_create(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_promise_create(data)
    return {"promise": promise_record(create_under_keys(state, data, now), now)}


def promise_settle(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_promise_settle(data)
    promise = existing(state, data["id"])
    if is_live(promise, now):
        settle(state, promise, data["state"], data.get("value", {}), now)
    return {"promise": promise_record(promise, now)}


def promise_register_callback(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data, "awaited")
    v.check_id(data, "awaiter")
    v.demand(data["awaited"] != data["awaiter"], "a promise cannot await itself")
    awaited = existing(state, data["awaited"])
    awaiter = state.promises.get(data["awaiter"])
    if awaiter is None or not is_targeted(awaiter["tags"]):
        raise Refused(422, "the awaiter has no task")
    if not is_external(awaited["tags"]):
        raise Refused(422, "the awaited is not external")
    if is_live(awaited, now) and is_live(awaiter, now):
        awaited["callbacks"].add(data["awaiter"])
    return {"promise": promise_record(awaited, now)}


def promise_register_listener(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data, "awaited")
    v.demand(v.is_address(data.get("address")), "address: not one")
    awaited = existing(state, data["awaited"])
    if not is_external(awaited["tags"]):
        raise Refused(422, "the awaited is not external")
    if is_live(awaited, now):
        awaited["listeners"].add(data["address"])
    return {"promise": promise_record(awaited, now)}


def promise_search(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_search(data, v.PROMISE_STATES)
    records = [promise_record(promise, now) for promise in state.promises.values()]
    if "state" in data:
        records = [record for record in records if record["state"] == data["state"]]
    records = [record for record in records if has_tags(record["tags"], data)]
    return page(records, "promises", data)


def has_tags(tags: dict[str, str], data: JsonObject) -> bool:
    """Whether all the tags that a search names match."""
    return all(tags.get(name) == text for name, text in data.get("tags", {}).items())


def page(records: list[JsonObject], field: str, data: JsonObject) -> JsonObject:
    """One page by id, beyond the cursor, which is the last id of the page before."""
    limit = data.get("limit", v.DEFAULT_LIMIT)
    found = [record for record in records if record["id"] > data.get("cursor", "")]
    found.sort(key=lambda record: str(record["id"]))
    answer: JsonObject = {field: found[:limit]}
    if len(found) > limit:
        answer["cursor"] = found[limit - 1]["id"]
    return answer
