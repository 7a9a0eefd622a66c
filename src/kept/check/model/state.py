"""What the model remembers, how it looks at an instant, and what a settlement does (A2, A3, A5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

NEVER: Final = 9_007_199_254_740_991
MAX_PRELOAD: Final = 1_000


class Refused(Exception):
    """A request that gets an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass
class State:
    """Everything stored. Promises and tasks hold their wire fields and the hidden ones of A2; of
    part B a promise holds its cancellation, and a task its queue, its failures, and what its holders
    released, in order. `keys` are those of creates."""

    promises: dict[str, JsonObject] = field(default_factory=dict)
    tasks: dict[str, JsonObject] = field(default_factory=dict)
    schedules: dict[str, JsonObject] = field(default_factory=dict)
    letters: dict[str, JsonObject] = field(default_factory=dict)
    keys: dict[str, JsonObject] = field(default_factory=dict)
    outbox: dict[tuple[str, ...], JsonObject] = field(default_factory=dict)


def is_targeted(tags: dict[str, str]) -> bool:
    return "resonate:target" in tags


def is_timer(tags: dict[str, str]) -> bool:
    return tags.get("resonate:timer") == "true"


def is_external(tags: dict[str, str]) -> bool:
    return is_targeted(tags) or is_timer(tags) or tags.get("resonate:external") == "true"


def queue_of(tags: dict[str, str]) -> str | None:
    """The queue in which a task waits to be claimed, if it does."""
    return tags["resonate:target"].removeprefix("queue://") if is_pulled(tags) else None


def is_pulled(tags: dict[str, str]) -> bool:
    return tags.get("resonate:target", "").startswith("queue://")


def is_live(promise: JsonObject, now: int) -> bool:
    """Whether its projection is pending."""
    return bool(promise["state"] == "pending" and promise["timeoutAt"] > now)


def promise_record(promise: JsonObject, now: int) -> JsonObject:
    """The promise on the wire, projected."""
    wire = ("id", "state", "param", "value", "tags", "timeoutAt", "createdAt", "settledAt")
    record = {name: promise[name] for name in wire if promise[name] is not None}
    if promise["state"] == "pending" and not is_live(promise, now):
        record["state"] = "resolved" if is_timer(promise["tags"]) else "rejected_timedout"
        record["settledAt"] = promise["timeoutAt"]
    return record


def task_state(state: State, task: JsonObject, now: int) -> str:
    """The task's state, projected: a task whose promise is not live is fulfilled."""
    live = is_live(state.promises[task["id"]], now)
    return str(task["state"]) if live else "fulfilled"


def task_record(state: State, task: JsonObject, now: int) -> JsonObject:
    """The task on the wire, projected."""
    record = {"id": task["id"], "state": task_state(state, task, now), "version": task["version"]}
    if record["state"] == "fulfilled":
        return record | {"resumes": 0}
    record["resumes"] = len(task["resumes"])
    for name in ("ttl", "pid"):
        if task[name] is not None:
            record[name] = task[name]
    return record


def preload(state: State, id: str, now: int) -> list[JsonObject]:
    """The children of a task, by parent and by branch, itself excluded, in order of id."""
    children = [
        promise_record(promise, now)
        for child, promise in sorted(state.promises.items())
        if child != id
        and id in (promise["tags"].get("resonate:parent"), promise["tags"].get("resonate:branch"))
    ]
    return children[:MAX_PRELOAD]


def create(state: State, data: JsonObject, now: int) -> JsonObject:
    """A promise as of `now`, or the one that is there: born settled when its deadline is past."""
    if data["id"] in state.promises:
        return state.promises[data["id"]]
    tags = dict(data.get("tags", {}))
    deadline = data["timeoutAt"]
    born_dead = deadline <= now
    verdict = "resolved" if is_timer(tags) else "rejected_timedout"
    promise = {
        "id": data["id"],
        "state": verdict if born_dead else "pending",
        "param": dict(data.get("param", {})),
        "value": {},
        "tags": tags,
        "timeoutAt": deadline,
        "createdAt": deadline if born_dead else now,
        "settledAt": deadline if born_dead else None,
        "callbacks": set(),
        "listeners": set(),
        "cancel": None,
    }
    state.promises[data["id"]] = promise
    if is_targeted(tags):
        task = {"id": data["id"], "state": "pending", "version": 0, "resumes": set()}
        task |= {"ttl": None, "pid": None, "expiresAt": None}
        task |= {"queue": queue_of(tags), "failures": 0, "released": ()}
        task["retryAt"] = max(now, int(tags.get("resonate:delay", now)))
        state.tasks[data["id"]] = task
        if born_dead:
            fulfil(task)
    return promise


def fulfil(task: JsonObject) -> None:
    """Lease, retry and resumes go."""
    task["state"] = "fulfilled"
    task["resumes"] = set()
    clear(task)


def clear(task: JsonObject) -> None:
    for name in ("ttl", "pid", "expiresAt", "retryAt"):
        task[name] = None


def make_pending(task: JsonObject, now: int) -> None:
    """Pending and due now, same version."""
    clear(task)
    task["state"] = "pending"
    task["retryAt"] = now


def settle(state: State, promise: JsonObject, outcome: str, value: JsonObject, now: int) -> None:
    """A client settles a live promise."""
    promise["state"] = outcome
    promise["value"] = dict(value)
    promise["settledAt"] = now
    after_settlement(state, promise, now)


def settle_by_deadline(state: State, promise: JsonObject, now: int) -> None:
    """Step 1 for one promise: what its projection shows is stored."""
    shown = promise_record(promise, now)
    promise["state"] = shown["state"]
    promise["settledAt"] = shown["settledAt"]
    after_settlement(state, promise, now)


def after_settlement(state: State, promise: JsonObject, now: int) -> None:
    """The task is fulfilled, then steps 2 and 3 drain the listeners and the callbacks."""
    if promise["id"] in state.tasks:
        fulfil(state.tasks[promise["id"]])
    addresses, promise["listeners"] = sorted(promise["listeners"]), set()
    for address in addresses:
        record = promise_record(promise, now)
        message = {"kind": "unblock", "head": {}, "data": {"promise": record}}
        key = ("unblock", promise["id"], address)
        state.outbox[key] = {"address": address, "message": message}
    awaiters, promise["callbacks"] = sorted(promise["callbacks"]), set()
    for awaiter in awaiters:
        wake(state, awaiter, promise["id"], now)


def wake(state: State, awaiter: str, awaited: str, now: int) -> None:
    """Step 3 for one callback."""
    task = state.tasks[awaiter]
    if task["state"] == "fulfilled":
        return
    if not is_live(state.promises[awaiter], now):
        settle_by_deadline(state, state.promises[awaiter], now)
        return
    if task["state"] == "suspended":
        make_pending(task, now)
    task["resumes"].add(awaited)
