"""What gets a 400 before any record is looked at (A4, A10)."""

from __future__ import annotations

import re
from typing import Any, Final

from kept.check.model.state import JsonObject, Refused

MAX_ID_BYTES: Final = 1_024
MAX_PAYLOAD_BYTES: Final = 1_048_576
MAX_TAGS: Final = 64
MAX_TAGS_BYTES: Final = 16_384
MAX_LIMIT: Final = 1_000
MAX_INTEGER: Final = 9_007_199_254_740_991
DEFAULT_LIMIT: Final = 100

SETTABLE: Final = ("resolved", "rejected", "rejected_canceled")
PROMISE_STATES: Final = ("pending", *SETTABLE, "rejected_timedout")
TASK_STATES: Final = ("pending", "acquired", "suspended", "halted", "fulfilled")

_BACKOFF: Final = re.compile(
    r"fixed:[0-9]{1,16}|(linear|exponential|full_jitter|equal_jitter):[0-9]{1,16}:[0-9]{1,16}"
)
_ADDRESS: Final = re.compile(
    r"https?://[^\s/]\S*|poll://uni@[^/\s]+/\S+|poll://any@[^/\s]+(/\S+)?", re.ASCII
)


def demand(condition: bool, text: str) -> None:  # noqa: FBT001
    """A 400 unless it holds."""
    if not condition:
        raise Refused(400, text)


def is_whole(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_ID_BYTES


def check_id(data: JsonObject, field: str = "id") -> None:
    demand(is_id(data.get(field)), f"{field}: not an id")


def check_whole(data: JsonObject, field: str, minimum: int) -> None:
    demand(is_whole(data.get(field), minimum), f"{field}: not a whole number >= {minimum}")


def check_text(data: JsonObject, field: str) -> None:
    demand(isinstance(data.get(field), str) and data[field] != "", f"{field}: not a text")


def check_texts(value: Any, field: str) -> None:
    """A mapping from text to text."""
    demand(isinstance(value, dict), f"{field}: not an object")
    demand(all(isinstance(text, str) for text in value.values()), f"{field}: not all are texts")


def check_payload(data: JsonObject, field: str) -> None:
    """An optional `{headers?, data?}`."""
    payload = data.get(field, {})
    demand(isinstance(payload, dict), f"{field}: not an object")
    demand(isinstance(payload.get("data", ""), str), f"{field}.data: not a text")
    check_texts(payload.get("headers", {}), f"{field}.headers")
    headers = payload.get("headers", {})
    texts = [payload.get("data", ""), *headers, *headers.values()]
    demand(sum(len(text.encode()) for text in texts) <= MAX_PAYLOAD_BYTES, f"{field}: too large")


def is_address(text: Any) -> bool:
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def is_target(text: Any) -> bool:
    return is_address(text) or (isinstance(text, str) and len(text) > 8 and text[:8] == "queue://")


def check_tags(tags: Any, field: str) -> None:
    check_texts(tags, field)
    demand(len(tags) <= MAX_TAGS, f"{field}: too many")
    size = sum(len(name.encode()) + len(text.encode()) for name, text in tags.items())
    demand(size <= MAX_TAGS_BYTES, f"{field}: too large")
    if "resonate:target" in tags:
        demand(is_target(tags["resonate:target"]), f"{field}: invalid target address")
    _check_job_tags(tags, field)


def _check_job_tags(tags: dict[str, str], field: str) -> None:
    """The reserved tags of a job (B2)."""
    for name, least, most in (("kept:priority", 0, 9), ("kept:attempts", 1, 1_000)):
        if name in tags:
            is_number = re.fullmatch("[0-9]{1,16}", tags[name]) is not None
            demand(is_number and least <= int(tags[name]) <= most, f"{field}: {name}")
    if "kept:exhausted" in tags:
        demand(tags["kept:exhausted"] in ("reject", "halt"), f"{field}: kept:exhausted")
    if "kept:backoff" in tags:
        demand(_BACKOFF.fullmatch(tags["kept:backoff"]) is not None, f"{field}: kept:backoff")


_CHOICES: Final = (
    ("kept:dedupe-mismatch", ("refuse", "ignore")),
    ("kept:debounce-mode", ("postpone", "replace")),
    ("kept:singleton", ("skip", "return", "replace")),
)
_MORE: Final = (
    *(("kept:dedupe", f"kept:dedupe-{more}") for more in ("window", "mismatch")),
    *(("kept:debounce", f"kept:debounce-{more}") for more in ("mode", "max")),
    ("kept:singleton", "kept:singleton-key"),
)


def _check_keys(tags: dict[str, str], field: str) -> None:
    """Keys of a create (B4)."""
    for key, more in _MORE:
        demand(key in tags or more not in tags, f"{field}: {more} without its key")
    for name, choices in _CHOICES:
        demand(tags.get(name, choices[0]) in choices, f"{field}: {name}")
    for name in ("kept:dedupe-window", "kept:debounce-max"):
        is_number = re.fullmatch("[0-9]{1,16}", tags.get(name, "0")) is not None
        demand(is_number and int(tags.get(name, "0")) <= MAX_INTEGER, f"{field}: {name}")
    if "kept:debounce" in tags:
        waits = tags.get("resonate:target", "").startswith("queue://")
        demand(waits and tags.get("resonate:timer") != "true", f"{field}: debounce needs a queue")
    if "kept:singleton" in tags:
        named = tags.get("kept:singleton-key") or tags.get("kept:function", "")
        demand(is_id(named), f"{field}: a singleton of what")
    for name in ("kept:dedupe", "kept:debounce"):
        demand(name not in tags or is_id(tags[name]), f"{field}: {name}")


def check_no_keys(tags: dict[str, str], field: str) -> None:
    """Where a key would mean nothing."""
    keys = ("kept:dedupe", "kept:debounce", "kept:singleton")
    demand(not any(name in tags for name in keys), f"{field}: keys")


def check_promise_create(data: JsonObject) -> None:
    check_id(data)
    check_whole(data, "timeoutAt", 0)
    check_payload(data, "param")
    tags = data.get("tags", {})
    check_tags(tags, "tags")
    _check_keys(tags, "tags")
    if "resonate:delay" in tags:
        delay = tags["resonate:delay"]
        demand("resonate:target" in tags, "tags: a delay needs a target")
        demand(re.fullmatch("[0-9]{1,16}", delay) is not None, "tags: the delay is no number")
        demand(int(delay) < data["timeoutAt"], "tags: the delay is not before the deadline")


def check_promise_settle(data: JsonObject) -> None:
    check_id(data)
    demand(data.get("state") in SETTABLE, "state: not one to settle into")
    check_payload(data, "value")


def check_search(data: JsonObject, states: tuple[str, ...]) -> None:
    if "state" in data:
        demand(data["state"] in states, "state: unknown")
    if "tags" in data:
        check_texts(data["tags"], "tags")
    limit = data.get("limit", DEFAULT_LIMIT)
    demand(is_whole(limit, 1) and limit <= MAX_LIMIT, "limit: not 1 to 1000")
    demand(isinstance(data.get("cursor", ""), str), "cursor: not a text")


def check_lease(data: JsonObject) -> None:
    """The id and version by which a holder names its lease."""
    check_id(data)
    check_whole(data, "version", 0)


def check_holder(data: JsonObject) -> None:
    check_text(data, "pid")
    check_whole(data, "ttl", 1)


def check_action(action: Any, *kinds: str) -> JsonObject:
    """The data of an action that is of one of `kinds`."""
    demand(isinstance(action, dict), "action: not an object")
    demand(action.get("kind") in kinds, "action.kind: not one that belongs here")
    demand(isinstance(action.get("head", {}), dict), "action.head: not an object")
    demand(isinstance(action.get("data"), dict), "action.data: not an object")
    data: JsonObject = action["data"]
    return data
