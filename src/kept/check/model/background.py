"""Background steps 1, 4, 5 and 6, and `debug.*` (A4, A5). Steps 2 and 3 belong to the settlement."""

from __future__ import annotations

from typing import Final

from kept.check.model.queues import expire_lease
from kept.check.model.schedules import fire
from kept.check.model.state import (
    NEVER,
    JsonObject,
    State,
    is_external,
    is_live,
    is_pulled,
    is_timer,
    promise_record,
    settle_by_deadline,
    task_record,
    task_state,
)

RETRY_TIMEOUT_MS: Final = 5_000


def tick(state: State, now: int) -> None:
    """Steps 1, 4, 6, 5, ids ascending, again and again until none is due."""
    busy = True
    while busy:
        busy = False
        for step in (promise_timeouts, lease_expiries, schedule_instants, retries):
            busy = step(state, now) or busy


def promise_timeouts(state: State, now: int) -> bool:
    """Step 1."""
    busy = False
    for _, promise in sorted(state.promises.items()):
        overdue = promise["state"] == "pending" and not is_live(promise, now)
        if overdue and is_external(promise["tags"]):
            settle_by_deadline(state, promise, now)
            busy = True
    return busy


def lease_expiries(state: State, now: int) -> bool:
    """Step 4."""
    busy = False
    for _, task in sorted(state.tasks.items()):
        if task_state(state, task, now) == "acquired" and task["expiresAt"] <= now:
            expire_lease(state, task["id"], now)
            busy = True
    return busy


def retries(state: State, now: int) -> bool:
    """Step 5."""
    busy = False
    for id, task in sorted(state.tasks.items()):
        tags = state.promises[id]["tags"]
        if is_timer(tags) or is_pulled(tags):
            continue
        if task_state(state, task, now) == "pending" and task["retryAt"] <= now:
            named = {"id": id, "version": task["version"]}
            message = {"kind": "execute", "head": {}, "data": {"task": named}}
            state.outbox["execute", id] = {
                "address": tags["resonate:target"],
                "message": message,
            }
            task["retryAt"] = now + RETRY_TIMEOUT_MS
            busy = True
    return busy


def schedule_instants(state: State, now: int) -> bool:
    """Step 6."""
    busy = False
    for _, schedule in sorted(state.schedules.items()):
        if schedule["nextRunAt"] <= now:
            fire(state, schedule, now)
            busy = True
    return busy


def overdue_edges(state: State, now: int) -> bool:
    """Whether a promise past its deadline, not stored so, still has callbacks or listeners."""
    return any(
        promise["state"] == "pending"
        and not is_live(promise, now)
        and (promise["callbacks"] or promise["listeners"])
        for promise in state.promises.values()
    )


def snapshot(state: State, now: int) -> JsonObject:
    """Everything, projected and sorted."""
    promises = [promise for _, promise in sorted(state.promises.items())]
    tasks = [task for _, task in sorted(state.tasks.items())]
    return {
        "promises": [promise_record(promise, now) for promise in promises],
        "promiseTimeouts": [
            {"id": promise["id"], "timeout": promise["timeoutAt"]}
            for promise in promises
            if is_live(promise, now)
            and is_external(promise["tags"])
            and promise["timeoutAt"] != NEVER
        ],
        "callbacks": [
            {"awaiter": awaiter, "awaited": awaited}
            for awaiter, awaited in sorted(
                (awaiter, promise["id"]) for promise in promises for awaiter in promise["callbacks"]
            )
        ],
        "listeners": [
            {"id": promise["id"], "address": address}
            for promise in promises
            for address in sorted(promise["listeners"])
        ],
        "tasks": [task_record(state, task, now) for task in tasks],
        "taskTimeouts": task_timeouts(state, tasks, now),
        "messages": list(state.outbox.values()),
    }


def task_timeouts(state: State, tasks: list[JsonObject], now: int) -> list[JsonObject]:
    timeouts: list[JsonObject] = []
    for task in tasks:
        match task_state(state, task, now):
            case "pending":
                timeouts.append({"id": task["id"], "type": 0, "timeout": task["retryAt"]})
            case "acquired":
                timeouts.append({"id": task["id"], "type": 1, "timeout": task["expiresAt"]})
    return timeouts
