"""The requests on tasks (A4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kept.check.model import validation as v
from kept.check.model.cancellation import (
    CANCELED,
    asked_of,
    promise_cancel,
    reason_value,
    tell,
)
from kept.check.model.duplicates import create_under_keys
from kept.check.model.promises import page, promise_create, promise_settle
from kept.check.model.state import (
    JsonObject,
    Refused,
    State,
    clear,
    is_external,
    is_live,
    is_targeted,
    is_timer,
    make_pending,
    preload,
    promise_record,
    settle,
    task_record,
    task_state,
)

RESUME_AT_ONCE = 300


def existing(state: State, id: str) -> JsonObject:
    if id not in state.tasks:
        raise Refused(404, "no such task")
    return state.tasks[id]


def held(state: State, data: JsonObject, now: int) -> JsonObject:
    """The task, where the lease that the request names still holds."""
    task = existing(state, data["id"])
    if task_state(state, task, now) != "acquired" or task["version"] != data["version"]:
        raise Refused(409, "the lease does not hold")
    return task


def acquire(task: JsonObject, data: JsonObject, now: int) -> None:
    clear(task)
    task["state"] = "acquired"
    task["version"] += 1
    task["resumes"] = set()
    task["pid"] = data["pid"]
    task["ttl"] = data["ttl"]
    task["expiresAt"] = now + data["ttl"]


def task_with_promise(state: State, id: str, now: int) -> JsonObject:
    """A lease as it is answered; of a job with its attempt, of a replay with the order so far, of
    work that is asked to stop with when it was. Whoever reads that has been told."""
    stored = state.tasks[id]
    task = task_record(state, stored, now)
    children = preload(state, id, now) if task["state"] == "acquired" else []
    answer: JsonObject = {"task": task, "promise": promise_record(state.promises[id], now)}
    answer["preload"] = children
    is_job = stored["queue"] is not None and not is_timer(state.promises[id]["tags"])
    if is_job and task["state"] == "acquired":
        answer["attempt"] = stored["failures"] + 1
    asked = asked_of(state.promises[id], now)
    if asked is not None and task["state"] == "acquired":
        answer["cancelRequestedAt"] = asked.requested_at
        tell(state.promises[id])
    known = {child["id"] for child in children}
    released = [each for each in stored["released"] if each in known]
    return answer | {"released": released} if released else answer


def note_released(state: State, task: JsonObject, data: JsonObject) -> None:
    """Results that reached the code get the next numbers; the task's own id is its cancellation's
    (B3)."""
    for id in data.get("released", ()):
        if id not in task["released"]:
            task["released"] = (*task["released"], id)
    if task["id"] in data.get("released", ()):
        tell(state.promises[task["id"]])


def task_get(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    return {"task": task_record(state, existing(state, data["id"]), now)}


def task_create(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_holder(data)
    action = v.check_action(data.get("action"), "promise.create")
    v.check_promise_create(action)
    v.demand("resonate:target" in action.get("tags", {}), "action: needs a target")
    v.demand("kept:debounce" not in action["tags"], "action: takes no debounce")
    id = action["id"]
    if id in state.promises and not is_targeted(state.promises[id]["tags"]):
        raise Refused(422, "the promise has no target")
    promise = create_under_keys(state, action, now)
    if promise["id"] != id:
        return _stands_for_it(state, promise, now)
    task = state.tasks[id]
    shown = task_state(state, task, now)
    if shown in ("acquired", "suspended", "halted"):
        raise Refused(409, f"the task is {shown}")
    if shown == "pending":
        acquire(task, data, now)
    return task_with_promise(state, id, now)


def _stands_for_it(state: State, holder: JsonObject, now: int) -> JsonObject:
    """The key is held under another id: its settled record, without a lease (B4)."""
    if is_live(holder, now):
        raise Refused(409, "the key is held")
    if not is_targeted(holder["tags"]):
        raise Refused(422, "the key is held without a target")
    return task_with_promise(state, holder["id"], now)


def task_acquire(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_lease(data)
    v.check_holder(data)
    task = existing(state, data["id"])
    if task_state(state, task, now) != "pending" or task["version"] != data["version"]:
        raise Refused(409, "not pending at that version")
    acquire(task, data, now)
    return task_with_promise(state, data["id"], now)


def task_release(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_lease(data)
    make_pending(held(state, data, now), now)
    return {}


def task_fulfill(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_lease(data)
    action = v.check_action(data.get("action"), "promise.settle")
    v.check_promise_settle(action)
    v.demand(action["id"] == data["id"], "action: for another id")
    note_released(state, held(state, data, now), data)
    promise = state.promises[data["id"]]
    value = action.get("value", {})
    asked = asked_of(promise, now)
    if asked is not None and action["state"] == CANCELED and not _says_something(value):
        value = reason_value(asked.reason)
    settle(state, promise, action["state"], value, now)
    return {"promise": promise_record(promise, now)}


def _says_something(value: JsonObject) -> bool:
    return bool(value.get("headers")) or value.get("data") is not None


def task_suspend(state: State, data: JsonObject, now: int) -> tuple[int, JsonObject] | JsonObject:
    v.check_lease(data)
    awaited = _awaited(data)
    task = held(state, data, now)
    for id in awaited:
        if id not in state.promises or not is_external(state.promises[id]["tags"]):
            raise Refused(422, "an awaited is missing or not external")
    note_released(state, task, data)
    if not all(is_live(state.promises[id], now) for id in awaited):
        task["resumes"] = set()
        return RESUME_AT_ONCE, {"preload": preload(state, data["id"], now)}
    asked = asked_of(state.promises[data["id"]], now)
    if asked is not None and not asked.told:
        make_pending(task, now)
        task["failures"] = 0
        return {}
    task["resumes"] = set()
    for id in awaited:
        state.promises[id]["callbacks"].add(data["id"])
    clear(task)
    task["state"] = "suspended"
    # Progress was made (B2).
    task["failures"] = 0
    return {}


def _awaited(data: JsonObject) -> list[str]:
    actions = data.get("actions")
    v.demand(isinstance(actions, list) and len(actions) > 0, "actions: none")
    awaited: list[str] = []
    for action in actions or []:
        edge = v.check_action(action, "promise.register_callback")
        v.check_id(edge, "awaited")
        v.demand(edge.get("awaiter") == data["id"], "actions: a wrong awaiter")
        v.demand(edge["awaited"] != data["id"], "actions: a task cannot await itself")
        v.demand(edge["awaited"] not in awaited, "actions: awaited twice")
        awaited.append(edge["awaited"])
    return awaited


def task_fence(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_lease(data)
    action = v.check_action(data.get("action"), *FENCED)
    v.check_id(action)
    v.demand(action["id"] != data["id"], "action: targets the task itself")
    note_released(state, held(state, data, now), data)
    kind = data["action"]["kind"]
    status, answer = 200, {}
    text = ""
    try:
        answer = FENCED[kind](state, action, now)
        answer = {"promise": answer["promise"]}
    except Refused as refusal:
        status, text = refusal.status, refusal.text
    inner = {"kind": kind, "head": {"status": status}, "data": answer if status == 200 else text}
    return {"action": inner, "preload": preload(state, data["id"], now)}


FENCED: Final[dict[str, Callable[[State, JsonObject, int], JsonObject]]] = {
    "promise.create": promise_create,
    "promise.settle": promise_settle,
    "promise.cancel": promise_cancel,
}


def task_heartbeat(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_text(data, "pid")
    v.demand(isinstance(data.get("tasks"), list), "tasks: not a list")
    for named in data["tasks"]:
        v.demand(isinstance(named, dict), "tasks: not an object")
        v.check_lease(named)
    lost: list[JsonObject] = []
    cancel: list[str] = []
    for named in data["tasks"]:
        reason = _why_lost(state, named, data["pid"], now)
        if reason is None:
            task = state.tasks[named["id"]]
            task["expiresAt"] = now + task["ttl"]
            if asked_of(state.promises[named["id"]], now) is not None:
                cancel.append(named["id"])
        else:
            lost.append({"id": named["id"], "version": named["version"], "reason": reason})
    return {"lost": lost, "cancel": cancel} if data.get("report") else {}


def _why_lost(state: State, named: JsonObject, pid: str, now: int) -> str | None:
    """Why a lease does not hold any more (B3); None where it does."""
    task = state.tasks.get(named["id"])
    if task is None:
        return "unknown"
    shown = task_state(state, task, now)
    if shown in ("fulfilled", "halted"):
        return "settled" if shown == "fulfilled" else shown
    if task["version"] != named["version"]:
        return "superseded"
    if shown != "acquired":
        return "expired"
    return None if task["pid"] == pid else "superseded"


def task_halt(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    task = existing(state, data["id"])
    if task_state(state, task, now) == "fulfilled":
        raise Refused(409, "the task is fulfilled")
    clear(task)
    task["state"] = "halted"
    return {}


def task_continue(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_id(data)
    task = existing(state, data["id"])
    if task_state(state, task, now) != "halted":
        raise Refused(409, "the task is not halted")
    make_pending(task, now)
    return {}


def task_search(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_search(data, v.TASK_STATES)
    records = [task_record(state, task, now) for task in state.tasks.values()]
    if "state" in data:
        records = [record for record in records if record["state"] == data["state"]]
    return page(records, "tasks", data)
