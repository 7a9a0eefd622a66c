"""A history of protocol requests as parts for the checker: what each names, shows, and when.

What is judged, and how:

- Requests by id are. `debug.*` are not: they are no requests of a client; nor is what a
  `task.explain` or `promise.deliveries` says.
- A search or a page of children is read-committed (A10). Each record that it shows is judged by
  itself, as a look at it; that a record is missing is not judged.
- 401, 403, 413, 429 and 503 say that nothing was applied, so there is nothing to judge. Any other
  5xx leaves the outcome unknown, as no answer does.
- A heartbeat is cut into one part for each task, a replay into one for each letter, and a claim
  into one for each lease that it answered, because nothing else ties those tasks together. What is
  lost: that one request is one step across tasks, the order of a claim, and that an empty claim had
  nothing to take.
- A claim of unknown outcome may have taken any task of its queues, each as a part of its own, and
  may have given it back, where nobody waited for the answer any more.
- Of a cancellation, how far it has spread is not judged; a dead letter is compared without the fields
  that it does not have.

The server's instant of a step lies between invocation and return: on its own clock, where the
recorder knew it, else on the recorder's, give or take the skew; where the skew is unknown too, only
the instants in answers tell the time. Earliest
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
from kept.check.model.duplicates import key_names
from kept.check.occurrences import Occurrences
from kept.check.protocol_names import (
    cancels_in,
    is_schedule_key,
    list_of,
    mailbox_of,
    names_in,
    promises_in,
    schedule_key,
    tags_of,
)
from kept.check.sequential import FOREVER, JsonObject, Part

REQUEST_ID: Final = "kept:request"
QUEUE: Final = "queue://"
READS: Final = frozenset({"promise.get", "promise.wait", "task.get", "schedule.get"})
# What searches and pages show, by the kind of look that each record is then judged as.
SHOWING: Final = {
    "promise.search": ("promise.seen", "promises", "promise"),
    "promise.children": ("promise.seen", "preload", "promise"),
    "task.search": ("task.seen", "tasks", "task"),
    "schedule.search": ("schedule.seen", "schedules", "schedule"),
    "dead.list": ("dead.seen", "letters", "letter"),
}
# They show why something is as it is, and change nothing.
INQUIRIES: Final = frozenset({"task.explain", "promise.deliveries"})
SEEN: Final = frozenset(seen for seen, _, _ in SHOWING.values())
CLAIM: Final = "task.claim"
HAND_BACK: Final = "task.claim handed back"
NOTHING_APPLIED: Final = frozenset({401, 403, 413, 429, 503})
FIRST_UNCLEAR: Final = 500
# What a cancellation says of itself while its promise is pending, but for how far it has spread.
CANCEL_FIELDS: Final = ("mode", "requestedAt", "reason", "endsAt")
# Kinds by which a promise is created or settled, so that its record may show their instant.
TELLING: Final = frozenset(
    {
        *("promise.create", "promise.settle", "promise.cancel", "promise.get", "promise.wait"),
        *("task.create", "task.fulfill", "task.fence", "task.record", "schedule.create"),
    }
)

# Kinds that leave an instant which their own answers do not show, but others' may.
SILENT: Final = frozenset({"task.nack", "dead.replay", "signal.send"})


def parts_of(operations: Sequence[Operation], skew_ms: float | None) -> list[Part]:
    """All parts, in the order of the operations."""
    cutting = _Cutting(operations, skew_ms)
    claims: list[int] = []
    found: list[Part] = []
    for index, operation in enumerate(operations):
        answer = _judged_answer(operation)
        if _is_left_out(operation, is_unclear=answer is None):
            continue
        if operation.kind == CLAIM and answer is None:
            claims.append(index)
            continue
        for kind, data, own in _shares(operation, answer):
            found.append(cutting.part(index, kind, data, own))
    if claims:
        jobs = _Jobs(operations, found)
        for index in claims:
            data = operations[index].data
            for id in jobs.within_reach(operations[index]):
                found.append(cutting.part(index, CLAIM, {**data, "id": id}, None))
                back = {"id": id, "pid": data.get("pid")}
                found.append(cutting.part(index, HAND_BACK, back, None))
        found.sort(key=lambda part: part.index)
    return found


class _Cutting:
    """What every part needs to know of the whole history."""

    def __init__(self, operations: Sequence[Operation], skew_ms: float | None) -> None:
        self._operations = operations
        self._skew_ms = skew_ms
        self._earliest = _earliest(operations, skew_ms)
        self._shown = shown_instants(operations)
        self._occurrences = Occurrences(operations)
        self._ids = Counter(request_id_of(operation) for operation in operations)
        # What a nack answered, for one that was asked before it under the same id.
        self._retry_at = {
            request_id_of(operation): operation.answer.data["retryAt"]
            for operation in operations
            if operation.kind == "task.nack"
            and operation.answer is not None
            and isinstance(operation.answer.data, dict)
            and "retryAt" in operation.answer.data
        }

    def part(self, index: int, kind: str, data: JsonObject, answer: Answer | None) -> Part:
        """A share of an operation."""
        operation = self._operations[index]
        if kind == "task.nack" and answer is None:
            id = request_id_of(operation)
            if id is not None and id in self._retry_at:
                data = {**data, "retryAt": self._retry_at[id]}
        keys = [*names_in(kind, data, answer)]
        keys += [schedule_key(id) for id in self._occurrences.schedules_of(keys)]
        return Part(
            index=index,
            operation=operation,
            kind=kind,
            data=data,
            answer=answer,
            keys=tuple(dict.fromkeys(keys)),
            earliest=self._earliest[index],
            latest=_latest(operation, self._skew_ms),
            instants=_instants(kind, data, answer, self._shown),
            request_id=_known_id(operation, self._ids),
            waits=kind == CLAIM and bool(data.get("wait")),
        )


class _Jobs:
    """The jobs of each queue, and from when to when anybody named them."""

    def __init__(self, operations: Sequence[Operation], parts: Sequence[Part]) -> None:
        self._queued = _queued(operations)
        self._spans: dict[str, tuple[int, int]] = {}
        for part in parts:
            invoked = part.operation.invoked
            returned = part.operation.returned
            over = FOREVER if returned is None else returned
            for key in part.keys:
                first, last = self._spans.get(key, (invoked, over))
                self._spans[key] = (min(first, invoked), max(last, over))
        # What a schedule fires is there before anybody names it.
        for part in parts:
            schedules = [self._spans[key][0] for key in part.keys if is_schedule_key(key)]
            for key in part.keys:
                first, last = self._spans[key]
                self._spans[key] = (min(first, *schedules), last) if schedules else (first, last)

    def within_reach(self, claim: Operation) -> Iterator[str]:
        """Those that a claim of unknown outcome may have taken so that anybody could tell."""
        over = FOREVER if claim.returned is None else claim.returned
        names = list_of(claim.data.get("queues"))
        for id in dict.fromkeys(_each(self._queued.get(str(name), ()) for name in names)):
            first, last = self._spans.get(id, (FOREVER, -1))
            if first < over and claim.invoked < last:
                yield id


def _earliest(operations: Sequence[Operation], skew_ms: float | None) -> list[int]:
    found = [0] * len(operations)
    least = FOREVER
    for index in range(len(operations) - 1, -1, -1):
        operation = operations[index]
        if operation.clock_from is not None:
            least = min(least, operation.clock_from)
        elif skew_ms is not None:
            least = min(least, max(0, math.floor(operation.invoked_at - skew_ms)))
        else:
            least = 0
        found[index] = least
    return found


def _latest(operation: Operation, skew_ms: float | None) -> int:
    if operation.clock_until is not None:
        return operation.clock_until
    if skew_ms is None or operation.returned_at is None or _judged_answer(operation) is None:
        return FOREVER
    return math.ceil(operation.returned_at + skew_ms)


def request_id_of(operation: Operation) -> str | None:
    """The id under which a request may be repeated (protocol B1)."""
    head = operation.request.get("head")
    return head.get(REQUEST_ID) if isinstance(head, dict) else None


def _known_id(operation: Operation, ids: Counter[str | None]) -> str | None:
    """The id under which a request may be repeated; an empty one if nobody did, because ids that
    differ make states differ."""
    id = request_id_of(operation)
    return "" if id is not None and ids[id] == 1 else id


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
    if kind.startswith("debug.") or kind in INQUIRIES:
        return True
    if operation.answer is not None and operation.answer.status in NOTHING_APPLIED:
        return True
    return is_unclear and (kind in READS or kind in SHOWING)


def _shares(
    operation: Operation, answer: Answer | None
) -> Iterator[tuple[str, JsonObject, Answer | None]]:
    """The operation, or the shares into which it is cut."""
    kind, data = operation.kind, operation.data
    refused = answer is not None and answer.status >= 400
    if kind in SHOWING and not refused:
        yield from _looks(kind, answer)
    elif kind == "task.heartbeat" and not refused:
        for named in list_of(data.get("tasks")):
            yield kind, {**data, "tasks": [named]}, _beat_of(named, answer)
    elif kind == "dead.replay" and not refused:
        yield from _replays(data, answer)
    elif kind == CLAIM and not refused:
        claimed = answer.data if answer is not None and isinstance(answer.data, dict) else {}
        for lease in list_of(claimed.get("tasks")):
            yield kind, {**data, "id": _claimed_id(lease)}, Answer(200, _without_added(lease))
    elif kind != CLAIM and any(True for _ in names_in(kind, data, answer)):
        own = None if answer is None else Answer(answer.status, _without_added(answer.data))
        if kind == "task.nack" and own is not None and isinstance(own.data, dict):
            data = {**data, **{name: at for name, at in own.data.items() if name == "retryAt"}}
        yield kind, data, own


def _looks(kind: str, answer: Answer | None) -> Iterator[tuple[str, JsonObject, Answer | None]]:
    """Each record that a search or a page shows."""
    seen, many, one = SHOWING[kind]
    if answer is None or not isinstance(answer.data, dict):
        return
    for record in list_of(answer.data.get(many)):
        if isinstance(record, dict):
            data = {"id": record.get("id", "")}
            yield seen, data, Answer(200, _without_added({one: record}))


def _beat_of(named: Any, answer: Answer | None) -> Answer | None:
    """What a heartbeat says of one of its tasks."""
    if answer is None:
        return None
    data = _without_added(answer.data)
    if isinstance(data, dict) and "lost" in data and isinstance(named, dict):
        lease = (named.get("id"), named.get("version"))
        own = [each for each in data["lost"] if (each.get("id"), each.get("version")) == lease]
        # A task may be named twice.
        data = {**data, "lost": own[:1]}
        if "cancel" in data:
            asked = [id for id in list_of(data["cancel"]) if id == named.get("id") and not own]
            data["cancel"] = asked[:1]
    return Answer(answer.status, data)


def _replays(
    data: JsonObject, answer: Answer | None
) -> Iterator[tuple[str, JsonObject, Answer | None]]:
    told = answer.data.get("replays") if answer and isinstance(answer.data, dict) else None
    for number, id in enumerate(list_of(data.get("ids"))):
        own = None
        if answer is not None:
            known = list_of(told)[number : number + 1]
            replays = [{n: v for n, v in each.items() if n != "error"} for each in known]
            own = Answer(answer.status, {"replays": replays})
        yield "dead.replay", {**data, "ids": [id], "id": id}, own


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
    if isinstance(data.get("letter"), dict):
        letter = {name: value for name, value in data["letter"].items() if value is not None}
        return {**data, "letter": letter}
    kept = dict(data)
    match kept:
        case {"task": {"state": "fulfilled"}}:
            # How often it had failed when it ended, or that it was asked to, is of no use to anybody.
            kept.pop("attempt", None)
            kept.pop("cancelRequestedAt", None)
        case {"promise": {"state": "pending"}, "cancel": dict(cancel)}:
            kept["cancel"] = {name: cancel[name] for name in CANCEL_FIELDS if name in cancel}
        case {"promise": _, "cancel": _}:
            del kept["cancel"]
    if kept.get("released") == []:
        del kept["released"]
    return kept


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
    """The ids of the jobs of each queue: those that anybody created, and those that were shown."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for operation in operations:
        for record in (*_creates(operation), *_shown_promises(operation)):
            target = tags_of(record).get("resonate:target", "")
            if isinstance(target, str) and target.startswith(QUEUE):
                found[target.removeprefix(QUEUE)][str(record.get("id", ""))] = None
    return {queue: list(ids) for queue, ids in found.items()}


def _shown_promises(operation: Operation) -> Iterator[JsonObject]:
    """Every promise record in the answer to an operation."""
    if operation.answer is None or not isinstance(operation.answer.data, dict):
        return
    yield from promises_in(operation.answer.data)
    for many in ("tasks", "promises"):
        for each in list_of(operation.answer.data.get(many)):
            if isinstance(each, dict):
                yield from promises_in(each if many == "tasks" else {"promise": each})


# -- what answers show of the time -------------------------------------------------------------------


def _instants_in(record: JsonObject) -> Iterator[int]:
    for field in ("settledAt", "createdAt", "diedAt", "lastRunAt"):
        if isinstance(record.get(field), int):
            yield record[field]


def shown_instants(operations: Sequence[Operation]) -> dict[str, set[int]]:
    """For each promise, the instants at which it was created and settled, as anybody was told."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for operation in operations:
        if operation.answer is None or not isinstance(operation.answer.data, dict):
            continue
        data = operation.answer.data
        leases = [each for each in list_of(data.get("tasks")) if isinstance(each, dict)]
        for answer in (data, *leases):
            for record in promises_in(answer):
                # Who takes another's place under a key settles that one too.
                for id in (str(record.get("id", "")), *key_names(tags_of(record)).values()):
                    found[id].update(_instants_in(record))
            for id, at in asks_in(answer):
                found[id].add(at)
        for kind, record in _records_in(operation.kind, data):
            id = str(record.get("id", ""))
            found[schedule_key(id) if kind == "schedule" else id].update(_instants_in(record))
    return found


def asks_in(answer: JsonObject) -> Iterator[tuple[str, int]]:
    """Of which promise an answer says that its work is asked to stop, and since when."""
    match answer:
        case {"promise": {"id": str(id), "state": "pending"}, "cancelRequestedAt": int(at)}:
            yield id, at
        case {"promise": {"id": str(id), "state": "pending"}, "cancel": {"requestedAt": int(at)}}:
            yield id, at


def _records_in(kind: str, data: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Records of an answer beside those of promises that it carries, each with what it is."""
    _, many, one = SHOWING.get(kind, ("", "", ""))
    if many:
        yield from ((one, each) for each in list_of(data.get(many)) if isinstance(each, dict))
    for name in ("schedule", "letter"):
        if isinstance(data.get(name), dict):
            yield name, data[name]


def _instants(
    kind: str, data: JsonObject, answer: Answer | None, shown: dict[str, set[int]]
) -> tuple[int, ...]:
    if kind not in TELLING and kind not in SILENT:
        return ()
    if answer is None or kind in SILENT:
        ids = set(names_in(kind, data, answer))
        if kind == "signal.send" and answer is None:
            ids.update(id for id in shown if id.startswith(mailbox_of(data)))
        if kind == "dead.replay":
            # Without an answer, what it made is only known by its name.
            ids |= {id for id in shown if id.rpartition("~")[0] in ids}
        told = set(_each_instant(shown[id] for id in ids if id in shown))
        # Past its own deadline a create is something else, and its answer would have shown that.
        return tuple(sorted(told.union(_deadlines(data))))
    if not isinstance(answer.data, dict):
        return ()
    records = [answer.data.get(name) for name in ("promise", "schedule")]
    records.append(_inner_promise(answer.data))
    found = {
        instant for record in records if isinstance(record, dict)
        for instant in _instants_in(record)
    }  # fmt: skip
    for asked in cancels_in(kind, data):
        # When it was asked to stop, its record does not show, but who takes the task is told.
        found |= shown.get(str(asked.get("id", "")), set())
    return tuple(sorted(found, reverse=True))


def _each_instant(sets: Iterable[Iterable[int]]) -> Iterator[int]:
    for one in sets:
        yield from one


def _deadlines(data: JsonObject) -> Iterator[int]:
    """When what a request creates is born settled."""
    for inner in (data, data.get("step"), (data.get("action") or {}).get("data")):
        if isinstance(inner, dict) and isinstance(inner.get("timeoutAt"), int):
            yield inner["timeoutAt"]


def _inner_promise(data: JsonObject) -> Any:
    match data:
        case {"action": {"data": {"promise": promise}}}:
            return promise
    return None


def show_request(part: Part) -> str:
    """The request of a part in one line, for people."""
    return f"{part.kind} {msgspec.json.encode(part.data).decode()[:400]}"
