"""Queues, failures and what a worker may do beside the base protocol (B1, B2, B3).

Jitter is a hash that the text leaves open, so a backoff is a span here: what the server answered is
right if it lies in it, and where nobody was told, the task is due from its beginning on.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kept.check.model import validation as v
from kept.check.model.letters import file_letter
from kept.check.model.state import (
    JsonObject,
    Refused,
    State,
    clear,
    create,
    is_live,
    is_pulled,
    is_timer,
    make_pending,
    promise_record,
    settle,
    task_state,
)
from kept.check.model.tasks import acquire, existing, held, note_released, task_with_promise

DEFAULT_BACKOFF: Final = "full_jitter:1000:900000"
_BACKOFF: Final = re.compile(
    r"(?P<fixed>fixed):(?P<base>\d+)|(?P<name>linear|exponential|full_jitter|equal_jitter)"
    r":(?P<least>\d+):(?P<most>\d+)",
    re.ASCII,
)
MAX_DOUBLINGS: Final = 60
FINALS: Final = ("reject", "halt")


class Span(NamedTuple):
    """Milliseconds, both ends included."""

    least: int
    most: int


def backoff(tags: dict[str, str], failures: int) -> Span:
    """How long to wait after so many failures."""
    found = _BACKOFF.fullmatch(tags.get("kept:backoff", DEFAULT_BACKOFF))
    assert found is not None, tags
    if found["fixed"]:
        return Span(int(found["base"]), int(found["base"]))
    base, limit = int(found["least"]), int(found["most"])
    if found["name"] == "linear":
        full = min(base * failures, limit)
    else:
        full = min(base * 2 ** min(failures - 1, MAX_DOUBLINGS), limit)
    match found["name"]:
        case "full_jitter":
            return Span(0, full)
        case "equal_jitter":
            return Span(full // 2, full)
    return Span(full, full)


def is_exhausted(tags: dict[str, str], failures: int) -> bool:
    """Whether the failures allowed are used up."""
    return "kept:attempts" in tags and failures >= int(tags["kept:attempts"])


def give_up(
    state: State, task: JsonObject, outcome: str, reason: str, error: JsonObject, now: int
) -> None:
    """Rejects the promise or halts the task, and files the dead letter."""
    promise = state.promises[task["id"]]
    if outcome == "halt":
        clear(task)
        task["state"] = "halted"
    else:
        settle(state, promise, "rejected", error, now)
    file_letter(state, task, reason, error, is_halted=outcome == "halt", now=now)


def expire_lease(state: State, id: str, now: int) -> None:
    """Step 4, and the failure that it is. The task is due no earlier than the lease's end and what
    the backoff adds at the least: who took the step, and when, nobody is told."""
    task, tags = state.tasks[id], state.promises[id]["tags"]
    expired_at = task["expiresAt"]
    task["failures"] += 1
    if is_exhausted(tags, task["failures"]):
        give_up(state, task, tags.get("kept:exhausted", "reject"), "lease_expired", {}, now)
        return
    make_pending(task, now)
    if is_pulled(tags):
        task["retryAt"] = expired_at + backoff(tags, task["failures"]).least


def task_claim(state: State, data: JsonObject, now: int) -> JsonObject:
    """One lease of a claim: `id` is the task that was taken."""
    task = existing(state, data["id"])
    tags = state.promises[data["id"]]["tags"]
    is_wanted = tags.get("resonate:target") in {f"queue://{name}" for name in data["queues"]}
    if data.get("functions") is not None:
        is_wanted = is_wanted and tags.get("kept:function") in data["functions"]
    is_there = task_state(state, task, now) == "pending" and task["retryAt"] <= now
    if not is_wanted or is_timer(tags) or not is_there:
        raise Refused(409, "not there to be claimed")
    acquire(task, data, now)
    return task_with_promise(state, data["id"], now)


def hand_back(state: State, data: JsonObject, now: int) -> JsonObject:
    """What a claim took that nobody waited for any more is given back by the server."""
    task = existing(state, data["id"])
    if task_state(state, task, now) == "acquired" and task["pid"] == data["pid"]:
        make_pending(task, now)
    return {}


def task_nack(state: State, data: JsonObject, now: int) -> JsonObject:
    """A failed attempt. `retryAt` in the data is what the server answered, where it did."""
    v.check_lease(data)
    v.check_payload(data, "error")
    v.demand(data.get("final") in (None, *FINALS), "final: neither reject nor halt")
    if data.get("delay") is not None:
        v.check_whole(data, "delay", 0)
    task = held(state, data, now)
    tags = state.promises[data["id"]]["tags"]
    consumes = data.get("consume", True)
    if consumes:
        task["failures"] += 1
    final = data.get("final")
    if final is None and consumes and is_exhausted(tags, task["failures"]):
        final = tags.get("kept:exhausted", "reject")
    if final is not None:
        reason = data.get("reason") or "exhausted"
        give_up(state, task, final, reason, dict(data.get("error") or {}), now)
        return {"outcome": "halted" if final == "halt" else "rejected"}
    span = nack_span(data, tags, task["failures"])
    retry_at = now + span.least
    if now + span.least <= data.get("retryAt", -1) <= now + span.most:
        retry_at = data["retryAt"]
    make_pending(task, now)
    task["retryAt"] = retry_at
    return {"outcome": "retry", "retryAt": retry_at}


def nack_span(data: JsonObject, tags: dict[str, str], failures: int) -> Span:
    """How long after a nack the task may be due again."""
    delay = data.get("delay")
    return backoff(tags, max(failures, 1)) if delay is None else Span(delay, delay)


def task_record_step(state: State, data: JsonObject, now: int) -> JsonObject:
    """A child is created and settled under the lease."""
    v.check_lease(data)
    v.demand(isinstance(data.get("step"), dict), "step: not an object")
    step = data["step"]
    v.check_promise_create(step)
    v.check_no_keys(step.get("tags", {}), "step.tags")
    v.check_promise_settle({**data, "id": step["id"]})
    v.demand(step["id"] != data["id"], "step: the task itself")
    note_released(state, held(state, data, now), data)
    promise = create(state, step, now)
    if is_live(promise, now):
        settle(state, promise, data["state"], data.get("value", {}), now)
    return {"promise": promise_record(promise, now)}
