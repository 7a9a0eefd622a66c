"""Creates under keys: dedupe, debounce, singleton (protocol B4).

For each key the model remembers the promise that took it last. Whether that still has it follows from
its state and, for a dedupe key, from its window.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from kept.check.model.state import (
    NEVER,
    JsonObject,
    Refused,
    State,
    create,
    is_live,
    settle,
)

DEDUPE: Final = "kept:dedupe"
DEBOUNCE: Final = "kept:debounce"
SINGLETON: Final = "kept:singleton"
KEYS: Final = (DEDUPE, DEBOUNCE, SINGLETON)


class Admission(NamedTuple):
    """A create that goes ahead: whose place it takes; when the first create under its debounce key
    came, and when (ms) it is due in any case."""

    replaced: tuple[str, ...]
    first: int
    latest: int | None


def key_names(tags: JsonObject) -> dict[str, str]:
    """Each key that the tags name, by its kind, as a name that it has nowhere else."""
    named = {kind: str(tags[kind]) for kind in KEYS if kind in tags}
    if not named:
        return {}
    target = str(tags.get("resonate:target", ""))
    queue = target.removeprefix("queue://") if target.startswith("queue://") else ""
    if SINGLETON in named:
        function = str(tags.get("kept:function", ""))
        bare = function.rpartition("@")[0] or function
        named[SINGLETON] = str(tags.get("kept:singleton-key") or bare)
    return {kind: f"{kind} {queue} {key}" for kind, key in named.items()}


def create_under_keys(state: State, data: JsonObject, now: int) -> JsonObject:
    """The promise of a create: its own, or the one that stands for it."""
    names = key_names(data.get("tags", {}))
    if data["id"] in state.promises or not names:
        return create(state, data, now)
    admitted = _consider(state, data, names, now)
    if not isinstance(admitted, Admission):
        return admitted
    for id in admitted.replaced:
        settle(state, state.promises[id], "rejected_canceled", {}, now)
    promise = create(state, data, now)
    if DEBOUNCE in names and admitted.latest is not None and is_live(promise, now):
        task = state.tasks[data["id"]]
        task["retryAt"] = max(now, min(task["retryAt"], admitted.latest))
    _take(state, promise, names, admitted, now)
    return promise


def _take(
    state: State, promise: JsonObject, names: dict[str, str], admitted: Admission, now: int
) -> None:
    """It has its keys from now on, where there is anything to have them for."""
    for kind, name in names.items():
        taken = {"name": name, "holder": promise["id"], "until": 0}
        if kind == DEDUPE:
            window = int(promise["tags"].get("kept:dedupe-window", 0))
            taken["until"] = min(now + window, NEVER)
            taken["fingerprint"] = _fingerprint(promise)
        elif kind == DEBOUNCE:
            taken |= {"first": admitted.first, "latest": admitted.latest}
        if is_live(promise, now) or taken["until"] > now:
            state.keys[name] = taken


def _consider(
    state: State, data: JsonObject, names: dict[str, str], now: int
) -> JsonObject | Admission:
    admitted = Admission((), now, None)
    if DEDUPE in names:
        holder = _dedupe(state, data, names[DEDUPE], now)
        if holder is not None:
            return holder
    if DEBOUNCE in names:
        debounced = _debounce(state, data, names[DEBOUNCE], now)
        if not isinstance(debounced, Admission):
            return debounced
        admitted = debounced
    if SINGLETON in names:
        holder = _holder(state, names[SINGLETON], now)
        if holder is not None and holder["id"] not in admitted.replaced:
            match data["tags"][SINGLETON]:
                case "return":
                    return holder
                case "skip":
                    raise Refused(409, "another one is under way")
            admitted = admitted._replace(replaced=(*admitted.replaced, holder["id"]))
    return admitted


def _holder(state: State, name: str, now: int) -> JsonObject | None:
    """The unsettled promise that has a key."""
    if name not in state.keys:
        return None
    promise = state.promises[state.keys[name]["holder"]]
    return promise if is_live(promise, now) else None


def _dedupe(state: State, data: JsonObject, name: str, now: int) -> JsonObject | None:
    if name not in state.keys:
        return None
    taken = state.keys[name]
    promise = state.promises[taken["holder"]]
    if not is_live(promise, now) and taken["until"] <= now:
        return None
    is_same = taken["fingerprint"] == _fingerprint(data)
    if not is_same and data["tags"].get("kept:dedupe-mismatch") != "ignore":
        raise Refused(409, "another fingerprint")
    return promise


def _fingerprint(record: JsonObject) -> str:
    given = record["tags"].get("kept:fingerprint")
    param = record.get("param", {})
    own = json.dumps([sorted((param.get("headers") or {}).items()), param.get("data")])
    return str(given) if given is not None else f"param {own}"


def _debounce(state: State, data: JsonObject, name: str, now: int) -> JsonObject | Admission:
    """The one that waits is put off, or gives way, if it was never started."""
    longest = data["tags"].get("kept:debounce-max")
    holder = _holder(state, name, now)
    task = state.tasks[holder["id"]] if holder is not None else None
    if holder is None or task is None or task["state"] != "pending" or task["version"] > 0:
        return Admission((), now, _latest(now, longest, None))
    taken = state.keys[name]
    latest = _latest(taken["first"], longest, taken["latest"])
    if data["tags"].get("kept:debounce-mode") == "replace":
        return Admission((holder["id"],), taken["first"], latest)
    taken["latest"] = latest
    due_at = min(int(data["tags"].get("resonate:delay", 0)), holder["timeoutAt"] - 1)
    if latest is not None:
        due_at = min(due_at, latest)
    if due_at > max(task["retryAt"], now):
        task["retryAt"] = due_at
    return holder


def _latest(first: int, longest: str | None, known: int | None) -> int | None:
    """When it is due in any case: what was once promised stays."""
    found = [] if longest is None else [min(first + int(longest), NEVER)]
    found += [] if known is None else [known]
    return min(found, default=None)
