"""Dead letters and their replays (B4)."""

from __future__ import annotations

from typing import Final

from kept.check.model import validation as v
from kept.check.model.state import NEVER, JsonObject, Refused, State, create, make_pending

NOT_REPLAYED: Final = ("resonate:delay", "resonate:origin", "resonate:branch", "resonate:parent")
DUPLICATES: Final = ("kept:dedupe", "kept:debounce", "kept:singleton", "kept:fingerprint")


def file_letter(
    state: State, task: JsonObject, reason: str, error: JsonObject, *, is_halted: bool, now: int
) -> None:
    """What an operator needs to know of work that was given up on."""
    promise = state.promises[task["id"]]
    letter = {
        "id": task["id"],
        "reason": reason,
        "error": error,
        "failures": task["failures"],
        "createdAt": promise["createdAt"],
        "diedAt": now,
        "halted": is_halted,
        "param": promise["param"],
        "tags": promise["tags"],
        "replays": 0,
    }
    if task["queue"] is not None:
        letter["queue"] = task["queue"]
    if "kept:function" in promise["tags"]:
        letter["function"] = promise["tags"]["kept:function"]
    state.letters[task["id"]] = letter


def letter_record(letter: JsonObject) -> JsonObject:
    """The dead letter on the wire."""
    return {name: value for name, value in letter.items() if name != "replays" or value}


def dead_get(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    if data["id"] not in state.letters:
        raise Refused(404, "no such dead letter")
    return {"letter": letter_record(state.letters[data["id"]])}


def dead_replay(state: State, data: JsonObject, now: int) -> JsonObject:
    """Each id by itself."""
    return {"replays": [_replay(state, id, data, now) for id in data["ids"]]}


def _replay(state: State, id: str, data: JsonObject, now: int) -> JsonObject:
    if id not in state.letters:
        return {"id": id, "status": 404}
    letter, promise = state.letters[id], state.promises[id]
    is_pending = promise["state"] == "pending" and promise["timeoutAt"] > now
    if letter["halted"] and is_pending and data.get("param") is None:
        task = state.tasks[id]
        if task["state"] != "halted":
            return {"id": id, "status": 409}
        make_pending(task, now)
        task["failures"] = 0
        letter["replays"] += 1
        return {"id": id, "status": 200, "replayedAs": id}
    letter["replays"] += 1
    while f"{id}~{letter['replays']}" in state.promises:
        letter["replays"] += 1
    again = f"{id}~{letter['replays']}"
    is_endless = promise["timeoutAt"] == NEVER
    span = promise["timeoutAt"] - promise["createdAt"]
    tags = {name: text for name, text in letter["tags"].items() if not _is_left_behind(name)}
    request = {
        "id": again,
        "timeoutAt": NEVER if is_endless else min(now + span, NEVER),
        "param": data.get("param") or letter["param"],
        "tags": tags | {"kept:replay-of": id},
    }
    create(state, request, now)
    return {"id": id, "status": 200, "replayedAs": again}


def _is_left_behind(tag: str) -> bool:
    return tag in (*NOT_REPLAYED, "resonate:schedule") or tag.startswith(DUPLICATES)
