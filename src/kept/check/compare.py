"""Where two answers to one request differ: the model's and a server's.

Only what the protocol leaves open is levelled: absent or empty headers of a payload (A7.7), the
order of a preload, the order of a snapshot's edges and messages, who is named as `serverUrl`, the
data of debug.start, stop and reset, and all error texts. The preload of a fence may be empty (A7.4):
no replay follows a fence, so nothing needs it.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

JsonObject = dict[str, Any]

PAYLOADS: Final = ("param", "value", "promiseParam", "error")
UNORDERED: Final = ("preload", "callbacks", "listeners", "messages")
WITHOUT_DATA: Final = ("debug.start", "debug.stop", "debug.reset")


class Reply(NamedTuple):
    """A status with its data."""

    status: int
    data: Any


def difference(kind: str, expected: Reply, actual: Reply) -> str | None:
    """The first place where the answers differ, with both contents; none where they agree."""
    if expected.status != actual.status:
        return f"status: expected {expected.status}, got {actual.status}"
    if expected.status >= 400:
        return None if isinstance(actual.data, str) else "data: an error's data is a string"
    if kind in WITHOUT_DATA:
        return None
    wanted, got = level(expected.data), level(actual.data)
    if kind == "task.fence" and got.get("preload") == []:
        wanted["preload"] = []
    return _first_difference(wanted, got, "data")


def level(value: Any) -> Any:
    """The value without what the protocol leaves open."""
    if isinstance(value, list):
        return [level(item) for item in value]
    if not isinstance(value, dict):
        return value
    levelled = {name: level(item) for name, item in value.items()}
    for name in PAYLOADS:
        if isinstance(levelled.get(name), dict) and not levelled[name].get("headers", True):
            del levelled[name]["headers"]
    for name in UNORDERED:
        if isinstance(levelled.get(name), list):
            levelled[name].sort(key=lambda item: json.dumps(item, sort_keys=True))
    match levelled:
        case {"kind": "execute", "head": dict(head)}:
            head.pop("serverUrl", None)
        case {"action": {"head": {"status": int(status)}, "data": data} as action}:
            action["head"] = {"status": status}
            action["data"] = "error text" if isinstance(data, str) else data
    return levelled


def _first_difference(expected: Any, actual: Any, place: str) -> str | None:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in sorted(expected.keys() | actual.keys()):
            inner = f"{place}.{name}"
            if name not in actual:
                return f"{inner}: expected {_short(expected[name])}, got nothing"
            if name not in expected:
                return f"{inner}: expected nothing, got {_short(actual[name])}"
            if found := _first_difference(expected[name], actual[name], inner):
                return found
        return None
    if isinstance(expected, list) and isinstance(actual, list):
        for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
            if found := _first_difference(one, other, f"{place}[{index}]"):
                return found
        if len(expected) != len(actual):
            more = (expected if len(expected) > len(actual) else actual)[
                min(len(expected), len(actual))
            ]
            return f"{place}: expected {len(expected)}, got {len(actual)}, first: {_short(more)}"
        return None
    # In Python true is 1; on the wire it is not.
    if expected == actual and isinstance(expected, bool) == isinstance(actual, bool):
        return None
    return f"{place}: expected {_short(expected)}, got {_short(actual)}"


def _short(value: Any) -> str:
    return json.dumps(value, sort_keys=True)[:400]
