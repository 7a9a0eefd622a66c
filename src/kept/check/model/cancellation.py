"""Canceling work and what it started (protocol B3).

How a cancellation spreads is left to the background, one child at a time: which, when, and whether
at all, the text does not say. Numbers of descendants are not modelled.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kept.check.model import validation as v
from kept.check.model.promises import existing
from kept.check.model.state import (
    JsonObject,
    State,
    is_live,
    is_timer,
    make_pending,
    promise_record,
    settle,
)

GRACE_MS: Final = 60_000
MAX_REASON_BYTES: Final = 1_024
MODES: Final = ("request", "force")
CANCELED: Final = "rejected_canceled"


class Cancel(NamedTuple):
    """What was asked of a promise while it was pending. `told`: whoever has the work since knows."""

    forced: bool
    requested_at: int
    reason: str | None
    recursive: bool
    told: bool = False

    @property
    def ends_at(self) -> int:
        """When the grace is over (ms)."""
        return self.requested_at + GRACE_MS


def promise_cancel(state: State, data: JsonObject, now: int) -> JsonObject:
    """What is settled stays as it is."""
    v.check_id(data)
    v.demand(data.get("mode", "request") in MODES, "mode: neither request nor force")
    reason = data.get("reason")
    is_text = reason is None or isinstance(reason, str)
    v.demand(is_text and len((reason or "").encode()) <= MAX_REASON_BYTES, "reason: too long")
    promise = existing(state, data["id"])
    is_forced, is_recursive = data.get("mode") == "force", data.get("recursive", True)
    if is_live(promise, now):
        cancel(state, promise, Cancel(is_forced, now, reason, is_recursive), now)
    answer = {"promise": promise_record(promise, now)}
    asked: Cancel | None = promise["cancel"]
    if asked is None or not is_live(promise, now):
        return answer
    told: dict[str, Any] = {"mode": "request", "requestedAt": asked.requested_at}
    told["endsAt"] = asked.ends_at
    return answer | {"cancel": told | ({"reason": asked.reason} if asked.reason else {})}


def cancel(state: State, promise: JsonObject, asked: Cancel, now: int) -> None:
    """A live promise is canceled; nothing happens where that asks for no more than before."""
    known: Cancel | None = promise["cancel"]
    wanted = asked if known is None else _both(known, asked)
    if wanted == known:
        return
    promise["cancel"] = wanted
    task = state.tasks.get(promise["id"])
    has_begun = task is not None and task["version"] > 0 and task["state"] != "halted"
    if wanted.forced or not has_begun:
        settle(state, promise, CANCELED, reason_value(wanted.reason), now)
    elif known is None and task is not None and task["state"] == "suspended":
        make_pending(task, now)


def _both(known: Cancel, asked: Cancel) -> Cancel:
    """The first instant and reason, the stronger mode, the wider reach."""
    return known._replace(
        forced=known.forced or asked.forced,
        reason=known.reason or asked.reason,
        recursive=known.recursive or asked.recursive,
    )


def reason_value(reason: str | None) -> JsonObject:
    return {"headers": {"kept-cancel-reason": reason}} if reason else {}


# -- in the background -------------------------------------------------------------------------------


def reaches(promises: dict[str, JsonObject], id: str, now: int) -> bool:
    """Whether a cancellation may go on to this promise from its parent, and asks for more than was
    asked of it before."""
    child = promises[id]
    tags = child["tags"]
    parent_id = tags.get("resonate:parent", id)
    if parent_id == id or parent_id not in promises or not is_live(child, now):
        return False
    parent = promises[parent_id]
    asked: Cancel | None = parent["cancel"]
    if asked is None or not asked.recursive:
        return False
    known: Cancel | None = child["cancel"]
    if known is not None and _both(known, asked) == known:
        return False
    if _origin(parent) != _origin(child) or tags.get("kept:detached") == "true":
        return False
    if asked.forced:
        return True
    is_clean_up = tags.get("kept:compensation") == "true"
    return not is_clean_up and not (is_timer(tags) and is_live(parent, now))


def _origin(promise: JsonObject) -> str:
    return str(promise["tags"].get("resonate:origin", promise["id"]))


def reach(state: State, id: str, now: int) -> None:
    """The cancellation of its parent, which reaches it, is one of its own."""
    child = state.promises[id]
    asked: Cancel = state.promises[child["tags"]["resonate:parent"]]["cancel"]
    spread = asked._replace(requested_at=now, recursive=True, told=False)
    cancel(state, child, spread, now)


def is_over(promise: JsonObject, now: int) -> bool:
    """Whether work that was asked to stop has not stopped within the grace."""
    asked: Cancel | None = promise["cancel"]
    return asked is not None and is_live(promise, now) and now >= asked.ends_at


def end_grace(state: State, id: str, now: int) -> None:
    """It is canceled as if forced."""
    promise = state.promises[id]
    cancel(state, promise, promise["cancel"]._replace(forced=True), now)


# -- who knows of it ---------------------------------------------------------------------------------


def asked_of(promise: JsonObject, now: int) -> Cancel | None:
    """The request to stop that stands."""
    asked: Cancel | None = promise["cancel"]
    return asked if is_live(promise, now) else None


def tell(promise: JsonObject) -> None:
    """Whoever has the work has heard."""
    if promise["cancel"] is not None:
        promise["cancel"] = promise["cancel"]._replace(told=True)
