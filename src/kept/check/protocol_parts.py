"""A history of protocol requests as parts for the checker: what each names, shows, and when.

What is judged, and how:

- Requests by id are. Searches, `debug.*`, `dead.*` and pages of children are not: they are
  read-committed (A10) or no requests of a client.
- 401, 403, 413, 429 and 503 say that nothing was applied, so there is nothing to judge. Any other
  5xx leaves the outcome unknown, as no answer does.
- A heartbeat is cut into one part for each task, and a claim into one for each lease that it
  answered, because nothing else ties those tasks together. What is lost: that one request is one
  step across tasks, the order of a claim, and that an empty claim had nothing to take.
- A claim of unknown outcome may have taken any task of its queues, each as a part of its own.

The server's instant of a step lies between invocation and return on the recorder's clock, give or
take the skew; where the skew is unknown, only the instants in answers tell the time. Earliest
instants are levelled so that they rise with the order of invocations, whatever the recorder's clock
did.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from kept.check.history import Answer, Operation
from kept.check.sequential import FOREVER, JsonObject, Part

REQUEST_ID: Final = "kept:request"
QUEUE: Final = "queue://"
READS: Final = frozenset({"promise.get", "promise.wait", "task.get", "schedule.get"})
NOT_JUDGED: Final = frozenset({"promise.children", "dead.list", "dead.get"})
NOTHING_APPLIED: Final = frozenset({401, 403, 413, 429, 503})
FIRST_UNCLEAR: Final = 500
# What our own extensions add to answers of the base protocol.
ADDED_FIELDS: Final = ("attempt", "released", "more", "lost", "cancel")
# Kinds by which a promise is created or settled, so that its record may show their instant.
TELLING: Final = frozenset(
    {
        *("promise.create", "promise.settle", "promise.get", "promise.wait"),
        *("task.create", "task.fulfill", "task.fence", "task.record", "schedule.create"),
    }
)


def parts_of(operations: Sequence[Operation], skew_ms: float | None) -> list[Part]:
    """All parts, in the order of the operations."""
    earliest = _earliest(operations, skew_ms)
    shown = _shown_instants(operations)
    queued = _queued(operations)
    ids = Counter(_request_id(operation) for operation in operations)
    # Ids matter only where one was asked twice; else they would only make states differ.
    is_repeated = any(count > 1 for id, count in ids.items() if id is not None)
    found: list[Part] = []
    for index, operation in enumerate(operations):
        answer = _judged_answer(operation)
        unclear = answer is None
        if _is_left_out(operation, is_unclear=unclear):
            continue
        latest = FOREVER
        if not unclear and skew_ms is not None and operation.returned_at is not None:
            latest = math.ceil(operation.returned_at + skew_ms)
        for kind, data, own in _shares(operation, answer, queued):
            keys = tuple(_keys(kind, data, own))
            part = Part(
                index=index,
                operation=operation,
                kind=kind,
                data=data,
                answer=own,
                keys=keys,
                earliest=earliest[index],
                latest=latest,
                instants=_instants(kind, data, own, shown),
                request_id=_request_id(operation) if is_repeated else None,
            )
            found.append(part)
    return found


def _earliest(operations: Sequence[Operation], skew_ms: float | None) -> list[int]:
    if skew_ms is None:
        return [0] * len(operations)
    found = [0] * len(operations)
    least = FOREVER
    for index in range(len(operations) - 1, -1, -1):
        least = min(least, max(0, math.floor(operations[index].invoked_at - skew_ms)))
        found[index] = least
    return found


def _request_id(operation: Operation) -> str | None:
    head = operation.request.get("head")
    return head.get(REQUEST_ID) if isinstance(head, dict) else None


def _judged_answer(operation: Operation) -> Answer | None:
    """The answer without what extensions add; None where the outcome is unknown."""
    answer = operation.answer
    if answer is None:
        return None
    if answer.status >= FIRST_UNCLEAR and answer.status not in NOTHING_APPLIED:
        return None
    return answer


def _is_left_out(operation: Operation, *, is_unclear: bool) -> bool:
    kind = operation.kind
    if kind.endswith(".search") or kind.startswith("debug.") or kind in NOT_JUDGED:
        return True
    if operation.answer is not None and operation.answer.status in NOTHING_APPLIED:
        return True
    return is_unclear and kind in READS


def _shares(
    operation: Operation, answer: Answer | None, queued: dict[str, list[str]]
) -> Iterator[tuple[str, JsonObject, Answer | None]]:
    """The operation, or the shares into which it is cut."""
    kind, data = operation.kind, operation.data
    refused = answer is not None and answer.status >= 400
    if kind == "task.heartbeat" and not refused:
        own = None if answer is None else Answer(answer.status, _without_added(answer.data))
        for named in _list(data.get("tasks")):
            yield kind, {"pid": data.get("pid"), "tasks": [named]}, own
    elif kind == "task.claim" and not refused:
        claimed = answer.data if answer is not None and isinstance(answer.data, dict) else {}
        for lease in _list(claimed.get("tasks")):
            yield kind, {**data, "id": _claimed_id(lease)}, Answer(200, _without_added(lease))
        if answer is None:
            names = _list(data.get("queues"))
            for id in dict.fromkeys(_each(queued.get(str(name), ()) for name in names)):
                yield kind, {**data, "id": id}, None
    elif kind != "task.claim" and any(True for _ in _keys(kind, data, answer)):
        own = None if answer is None else Answer(answer.status, _without_added(answer.data))
        yield kind, data, own


def _claimed_id(lease: Any) -> str:
    match lease:
        case {"task": {"id": str(id)}}:
            return id
    # No task has this id, so a lease that names none fits nowhere.
    return ""


def _each(lists: Iterable[Iterable[str]]) -> Iterator[str]:
    for one in lists:
        yield from one


def _without_added(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return {name: value for name, value in data.items() if name not in ADDED_FIELDS}


def _creates(operation: Operation) -> Iterator[JsonObject]:
    """The data of every promise.create in a request."""
    data = operation.data
    if operation.kind == "promise.create":
        yield data
    elif operation.kind == "task.record" and isinstance(data.get("step"), dict):
        yield data["step"]
    elif isinstance(data.get("action"), dict) and isinstance(data["action"].get("data"), dict):
        yield data["action"]["data"]


def _queued(operations: Sequence[Operation]) -> dict[str, list[str]]:
    """The ids of the jobs of each queue."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for operation in operations:
        for create in _creates(operation):
            target = _tags(create).get("resonate:target", "")
            if isinstance(target, str) and target.startswith(QUEUE):
                found[target.removeprefix(QUEUE)].append(create.get("id", ""))
    return found


def _tags(record: JsonObject) -> JsonObject:
    tags = record.get("tags")
    return tags if isinstance(tags, dict) else {}


# -- what a part names -------------------------------------------------------------------------------


def _keys(kind: str, data: JsonObject, answer: Answer | None) -> Iterator[str]:
    if kind.startswith("schedule."):
        yield schedule_key(str(data.get("id", "")))
        return
    yield from _named(data)
    for inner in (data.get("action"), *_list(data.get("actions"))):
        if isinstance(inner, dict) and isinstance(inner.get("data"), dict):
            yield from _named(inner["data"])
    if isinstance(data.get("step"), dict):
        yield from _named(data["step"])
    for named in _list(data.get("tasks")):
        if isinstance(named, dict):
            yield from _named(named)
    if answer is not None and isinstance(answer.data, dict):
        for record in promises_in(answer.data):
            yield from _named(record)


def schedule_key(id: str) -> str:
    """The key of a schedule, whose ids are apart from those of promises."""
    return f"schedule {id}"


def _named(record: JsonObject) -> Iterator[str]:
    for field in ("id", "awaited", "awaiter"):
        if isinstance(record.get(field), str):
            yield record[field]
    tags = _tags(record)
    for name in ("resonate:parent", "resonate:branch"):
        if isinstance(tags.get(name), str):
            yield tags[name]
    if isinstance(tags.get("resonate:schedule"), str):
        yield schedule_key(tags["resonate:schedule"])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def promises_in(data: JsonObject) -> Iterator[JsonObject]:
    """Every promise record in an answer."""
    if isinstance(data.get("promise"), dict):
        yield data["promise"]
    for record in _list(data.get("preload")):
        if isinstance(record, dict):
            yield record
    action = data.get("action")
    if isinstance(action, dict) and isinstance(action.get("data"), dict):
        yield from promises_in(action["data"])


# -- what answers show of the time -------------------------------------------------------------------


def _instants_in(record: JsonObject) -> Iterator[int]:
    for field in ("settledAt", "createdAt"):
        if isinstance(record.get(field), int):
            yield record[field]


def _shown_instants(operations: Sequence[Operation]) -> dict[str, set[int]]:
    """For each promise, the instants at which it was created and settled, as anybody was told."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for operation in operations:
        if operation.answer is None or not isinstance(operation.answer.data, dict):
            continue
        data = operation.answer.data
        leases = [each for each in _list(data.get("tasks")) if isinstance(each, dict)]
        for answer in (data, *leases):
            for record in promises_in(answer):
                found[str(record.get("id", ""))].update(_instants_in(record))
        if isinstance(data.get("schedule"), dict):
            schedule = data["schedule"]
            found[schedule_key(str(schedule.get("id", "")))].update(_instants_in(schedule))
    return found


def _instants(
    kind: str, data: JsonObject, answer: Answer | None, shown: dict[str, set[int]]
) -> tuple[int, ...]:
    if kind not in TELLING:
        return ()
    if answer is None:
        ids = set(_keys(kind, data, None))
        return tuple(sorted(set(_each_instant(shown[id] for id in ids if id in shown))))
    if not isinstance(answer.data, dict):
        return ()
    records = [answer.data.get(name) for name in ("promise", "schedule")]
    records.append(_inner_promise(answer.data))
    found = {
        instant for record in records if isinstance(record, dict)
        for instant in _instants_in(record)
    }  # fmt: skip
    return tuple(sorted(found, reverse=True))


def _each_instant(sets: Iterable[Iterable[int]]) -> Iterator[int]:
    for one in sets:
        yield from one


def _inner_promise(data: JsonObject) -> Any:
    match data:
        case {"action": {"data": {"promise": promise}}}:
            return promise
    return None


def show_request(part: Part) -> str:
    """The request of a part in one line, for people."""
    return f"{part.kind} {msgspec.json.encode(part.data).decode()[:400]}"
