"""What requests and answers name: the records that tie operations together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kept.check.history import Answer
from kept.check.model.duplicates import key_names
from kept.check.sequential import JsonObject


def names_in(kind: str, data: JsonObject, answer: Answer | None) -> Iterator[str]:
    """The records that a share of an operation names, or whose it shows."""
    if kind.startswith("schedule."):
        yield schedule_key(str(data.get("id", "")))
        return
    yield from _named(data)
    if kind == "signal.send" and answer is not None and isinstance(answer.data, dict):
        yield f"{mailbox_of(data)}{answer.data.get('number')}"
    if kind == "dead.purge":
        yield from (id for id in list_of(data.get("ids")) if isinstance(id, str))
    for inner in (data.get("action"), *list_of(data.get("actions"))):
        if isinstance(inner, dict) and isinstance(inner.get("data"), dict):
            yield from _named(inner["data"])
    if isinstance(data.get("step"), dict):
        yield from _named(data["step"])
    for named in list_of(data.get("tasks")):
        if isinstance(named, dict):
            yield from _named(named)
    if answer is not None and isinstance(answer.data, dict):
        for record in promises_in(answer.data):
            yield from _named(record)
        for replay in list_of(answer.data.get("replays")):
            if isinstance(replay.get("replayedAs"), str):
                yield replay["replayedAs"]


def mailbox_of(data: JsonObject) -> str:
    """How the ids of a mailbox's messages begin."""
    return f"{data.get('id')}!{data.get('name')}."


_SCHEDULE: Final = "schedule "


def schedule_key(id: str) -> str:
    """The key of a schedule, whose ids are apart from those of promises."""
    return f"{_SCHEDULE}{id}"


def is_schedule_key(key: str) -> bool:
    """Whether a key is a schedule's."""
    return key.startswith(_SCHEDULE)


def _named(record: JsonObject) -> Iterator[str]:
    for field in ("id", "awaited", "awaiter"):
        if isinstance(record.get(field), str):
            yield record[field]
    tags = tags_of(record)
    for name in ("resonate:parent", "resonate:branch", "kept:replay-of"):
        if isinstance(tags.get(name), str):
            yield tags[name]
    # Creates under one key may be answered by, or settle, each other's promises.
    yield from key_names(tags).values()
    if isinstance(tags.get("resonate:schedule"), str):
        yield schedule_key(tags["resonate:schedule"])


def cancels_in(kind: str, data: JsonObject) -> Iterator[JsonObject]:
    """The data of each cancellation that a request asks for."""
    if kind == "promise.cancel":
        yield data
    match data.get("action"):
        case {"kind": "promise.cancel", "data": dict(action)}:
            yield action


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def promises_in(data: JsonObject) -> Iterator[JsonObject]:
    """Every promise record in an answer."""
    if isinstance(data.get("promise"), dict):
        yield data["promise"]
    for record in list_of(data.get("preload")):
        if isinstance(record, dict):
            yield record
    action = data.get("action")
    if isinstance(action, dict) and isinstance(action.get("data"), dict):
        yield from promises_in(action["data"])


def tags_of(record: JsonObject) -> JsonObject:
    tags = record.get("tags")
    return tags if isinstance(tags, dict) else {}
