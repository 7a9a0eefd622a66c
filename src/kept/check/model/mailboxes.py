"""Talking to running work (protocol B8): messages to it, and what it says of itself.

What was sent is told by the messages themselves."""

from __future__ import annotations

import re
from itertools import count

from kept.check.model import validation as v
from kept.check.model.promises import existing
from kept.check.model.state import JsonObject, Refused, State, create, is_live, settle
from kept.check.model.tasks import held


def signal_send(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    name, key = data.get("name"), data.get("key")
    is_name = isinstance(name, str) and re.fullmatch("[a-z0-9_-]{1,64}", name) is not None
    v.demand(is_name, "name: not one")
    prefix = f"{data['id']}!{name}."
    for message in state.promises.values():
        if key is not None and message.get("key") == key and message["id"].startswith(prefix):
            return {"number": int(message["id"].removeprefix(prefix))}
    owner = existing(state, data["id"])
    if not is_live(owner, now):
        raise Refused(409, "the owner is settled")
    number = next(n for n in count(1) if _is_free(state, f"{prefix}{n}", data, now))
    id = f"{prefix}{number}"
    tags = {
        "resonate:origin": owner["tags"].get("resonate:origin", data["id"]),
        "resonate:parent": data["id"],
        "resonate:branch": data["id"],
        "resonate:external": "true",
        "kept:mailbox": name,
    }
    create(state, {"id": id, "timeoutAt": owner["timeoutAt"], "tags": tags}, now)
    message = state.promises[id]
    settle(state, message, "resolved", data.get("value", {}), now)
    message["key"] = key
    return {"number": number}


def _is_free(state: State, id: str, data: JsonObject, now: int) -> bool:
    """Whether the message may have this id: nothing is there, or somebody waits for it."""
    if id not in state.promises:
        return True
    promise = state.promises[id]
    own = (data["name"], data["id"])
    tags = promise["tags"]
    is_own = (tags.get("kept:mailbox"), tags.get("resonate:parent")) == own
    return is_live(promise, now) and is_own


def task_annotate(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_lease(data)
    task = held(state, data, now)
    said = state.promises[task["id"]].get("said", {"attributes": {}})
    merged = said["attributes"] | data.get("set", {})
    attributes = {name: value for name, value in merged.items() if value is not None}
    if len(attributes) > 64:
        raise Refused(422, "too many")
    progress = {name: data[name] for name in ("progress",) if data.get(name) is not None}
    state.promises[task["id"]]["said"] = {**said, "attributes": attributes, **progress}
    return {}
