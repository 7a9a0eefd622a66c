"""The naive sequential model of the protocol as a model for the linearizability checker.

Time. The server takes each step at an instant of its own clock, which never goes back (A3). A state
therefore knows the instant of its latest step, and a part may take place at any instant from there
on that its window allows. Which one only matters at few: those that answers show (`createdAt`,
`settledAt`), deadlines, and ends of leases. For each part these are tried, likely ones first, and
the earliest possible one for all others. Earlier is never worse: a later instant makes nothing
possible that waiting does not, so of two states with the same records the earlier one stands for
both.

The background. Deadlines, expired leases and schedules act by themselves, late as they like: an
expired lease that was not reaped still holds. So before any part, any of the steps that are due by
then may have been taken, or none. A step only matters to who names its records, or is woken by them,
so it is tried when such a part comes, and not before: until then it stays due, and steps of other
records do not mind the order. Step 2 (listeners) and step 5 (messages) show in no answer.

Own extensions. `promise.wait` answers like a get. `task.record` is a create and a settle under the
lease. A claim is an acquire of what it answered (see `protocol_parts`). A request asked again under
the same `kept:request` gets its answer again (B1). A component that uses more (`task.nack`, limited
attempts, duplicates by key) is not judged, and its verdict says so.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from kept.check.compare import Reply, difference
from kept.check.history import Operation
from kept.check.model import promises, tasks
from kept.check.model import validation as v
from kept.check.model.model import HANDLERS, Handler
from kept.check.model.schedules import fire
from kept.check.model.state import (
    MAX_PRELOAD,
    Refused,
    State,
    create,
    is_live,
    make_pending,
    preload,
    promise_record,
    settle,
    settle_by_deadline,
    task_state,
)
from kept.check.protocol_parts import parts_of
from kept.check.sequential import JsonObject, Part, Setting, Undecided
from kept.check.snapshots import Snapshot, Workspace

# States that the background may reach before one part; more, and the component is not judged.
MAX_BACKGROUND_STATES: Final = 2_000
MAX_SHOWN_CHARACTERS: Final = 600
BEYOND: Final = ("kept:attempts", "kept:dedupe", "kept:debounce", "kept:singleton")
REPEATABLE: Final = frozenset(
    f"task.{verb}" for verb in ("acquire", "claim", "release", "fulfill", "suspend", "record")
)
RESUMED: Final = 300
# What these leave depends on their instant only by `createdAt`, `settledAt` and deadlines; others
# leave a lease, whose end does.
WITHOUT_LEASE: Final = frozenset(
    {
        *("promise.create", "promise.settle", "promise.register_callback", "task.release"),
        *("task.fulfill", "task.suspend", "task.fence", "task.record", "task.halt"),
        "task.continue",
    }
)

BackgroundStep = Callable[[State], None]


class ProtocolModel:
    """Judges histories of the base protocol and of the extensions named above."""

    def parts(self, operations: Sequence[Operation], skew_ms: float | None) -> Iterable[Part]:
        return parts_of(operations, skew_ms)

    def limitation(self, setting: Setting) -> str | None:
        unknown = Counter(part.kind for part in setting.parts if part.kind not in APPLIED)
        for part in setting.parts:
            unknown.update(name for name in _tags_of(part.data) if name in BEYOND)
        if not unknown:
            return None
        names = ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items()))
        return f"not in the model: {names}"

    def initial(self, setting: Setting) -> Snapshot:
        return Snapshot()

    def is_unchanged(self, before: Snapshot, after: Snapshot) -> bool:
        return before == after

    def time(self, state: Snapshot) -> int:
        return state.time

    def show(self, state: Snapshot) -> JsonObject:
        return state.as_json()

    def successors(self, state: Snapshot, part: Part) -> Iterator[Snapshot]:
        found: list[Snapshot] = []
        for time in _times(state, part):
            for before in _with_background(state, part, time):
                reply, after = _applied(before, part, time)
                if part.answer is not None and not _fits(part, reply):
                    continue
                if not any(each.time <= after.time and each == after for each in found):
                    found.append(after)
                    yield after

    def may_swap(
        self, states: tuple[Snapshot, Snapshot, Snapshot], first: Part, second: Part
    ) -> bool:
        """They may, where neither touches what the other names or touches, and where `first` can
        be as late as `second` without anybody being able to tell."""
        before, between, after = states
        if not set(first.keys).isdisjoint(second.keys):
            return False
        ours = before.touched(between).union(first.keys)
        theirs = between.touched(after).union(second.keys)
        if not ours.isdisjoint(theirs):
            return False
        if after.time == between.time:
            return True
        if first.kind not in WITHOUT_LEASE or between.time in first.instants:
            return False
        deadlines = (
            state.promises[id]["timeoutAt"]
            for state in (before, between)
            for id in ours
            if id in state.promises
        )
        return not any(between.time < deadline <= after.time for deadline in deadlines)

    def expected(self, state: Snapshot, part: Part) -> str:
        times = list(_times(state, part))
        if not times:
            span = f"{part.earliest} to {part.latest}"
            return f"its instant lies in {span}, but {state.time} has been reached before it"
        reply, _ = _applied(state, part, times[0])
        assert part.answer is not None
        actual = Reply(part.answer.status, part.answer.data)
        place = _state_difference(reply, actual)
        place = place or difference(part.kind, _as_asked(part, reply), actual)
        if place is None:
            return f"only an instant outside of {part.earliest} to {part.latest} would fit"
        data = msgspec.json.encode(reply.data).decode()
        return f"{place} (the model answers {reply.status} {data[:MAX_SHOWN_CHARACTERS]})"


def _times(state: Snapshot, part: Part) -> Iterator[int]:
    """The instants (ms) worth trying."""
    start = max(state.time, part.earliest)
    if part.latest < start:
        return
    shown = [at for at in part.instants if start < at <= part.latest]
    if shown:
        yield shown[0]
    yield start
    yield from shown[1:]
    if state.next_instant <= part.latest:
        yield from (at for at in state.instants(start, part.latest) if at not in shown)


def _with_background(state: Snapshot, part: Part, time: int) -> Iterator[Snapshot]:
    """The state, and those that the background may have made of it by `time`."""
    yield state
    if state.next_step > time:
        return
    seen = [state]
    waiting = deque(seen)
    while waiting:
        before = waiting.popleft()
        for step in _due(before, part, time):
            workspace = Workspace(before)
            step(workspace.state)
            after = workspace.snapshot(time)
            if after in seen:
                continue
            if len(seen) >= MAX_BACKGROUND_STATES:
                raise Undecided(f"more than {MAX_BACKGROUND_STATES} states by background steps")
            seen.append(after)
            waiting.append(after)
            yield after


def _due(state: Snapshot, part: Part, time: int) -> Iterator[BackgroundStep]:
    """Steps that are due by `time` and that the part could notice."""
    named = _noticed(state, part)
    for id, promise in state.promises.items():
        is_overdue = promise["state"] == "pending" and promise["timeoutAt"] <= time
        if is_overdue and not named.isdisjoint(promise["callbacks"]):
            yield partial(_store_deadline, id=id, now=time)
    for id in named & state.tasks.keys():
        task = state.tasks[id]
        is_expired = task["state"] == "acquired" and task["expiresAt"] <= time
        if is_expired and is_live(state.promises[id], time):
            yield partial(_expire_lease, id=id, now=time)
    for id, schedule in state.schedules.items():
        if schedule["nextRunAt"] <= time:
            yield partial(_fire_once, id=id)


def _store_deadline(state: State, *, id: str, now: int) -> None:
    settle_by_deadline(state, state.promises[id], now)


def _expire_lease(state: State, *, id: str, now: int) -> None:
    make_pending(state.tasks[id], now)


def _fire_once(state: State, *, id: str) -> None:
    schedule = state.schedules[id]
    fire(state, schedule, schedule["nextRunAt"])


def _noticed(state: Snapshot, part: Part) -> set[str]:
    """What the part names, and whoever those wait for, directly or not."""
    found = set(part.keys)
    growing = True
    while growing:
        growing = False
        for id, promise in state.promises.items():
            if id not in found and not found.isdisjoint(promise["callbacks"]):
                found.add(id)
                growing = True
    return found


def _applied(state: Snapshot, part: Part, time: int) -> tuple[Reply, Snapshot]:
    """What the model answers at `time`, and the state that this leaves."""
    task = str(part.data.get("id", ""))
    is_repeatable = part.request_id is not None and part.kind in REPEATABLE
    if is_repeatable and (again := _again(state, part, task, time)) is not None:
        return again, state.at(time)
    workspace = Workspace(state)
    try:
        answer = APPLIED[part.kind](workspace.state, part.data, time)
    except Refused as refusal:
        return Reply(refusal.status, refusal.text), state.at(time)
    status, data = answer if isinstance(answer, tuple) else (200, answer)
    after = workspace.snapshot(time)
    if is_repeatable:
        assert part.request_id is not None
        after = after.remembering(task, (part.request_id, part.kind, status))
    return Reply(status, data), after


def _again(state: Snapshot, part: Part, task: str, time: int) -> Reply | None:
    """The answer to a request that was the task's last one already (B1)."""
    id, kind, status = state.requests.get(task, ("", "", 0))
    if id != part.request_id or kind != part.kind:
        return None
    looked = Workspace(state).state
    match kind:
        case "task.acquire" | "task.claim":
            held = looked.tasks[task]
            version = part.data.get("version", held["version"] - 1)
            is_held = task_state(looked, held, time) == "acquired"
            if not is_held or held["version"] != version + 1 or held["pid"] != part.data["pid"]:
                return None
            return Reply(200, tasks.task_with_promise(looked, task, time))
        case "task.fulfill":
            return Reply(200, {"promise": promise_record(looked.promises[task], time)})
        case "task.record":
            step = looked.promises[part.data["step"]["id"]]
            return Reply(200, {"promise": promise_record(step, time)})
        case "task.suspend" if status == RESUMED:
            return Reply(RESUMED, {"preload": preload(looked, task, time)})
    return Reply(200, {})


def _fits(part: Part, reply: Reply) -> bool:
    assert part.answer is not None
    if reply.status != part.answer.status:
        return False
    if reply.status >= 400 or reply.data == part.answer.data:
        return True
    actual = Reply(part.answer.status, part.answer.data)
    return difference(part.kind, _as_asked(part, reply), actual) is None


def _state_difference(expected: Reply, actual: Reply) -> str | None:
    """Where the states of a promise or a task differ: that says more than what follows from it."""
    if not isinstance(expected.data, dict) or not isinstance(actual.data, dict):
        return None
    for name in ("task", "promise"):
        wanted, got = expected.data.get(name), actual.data.get(name)
        if (
            isinstance(wanted, dict)
            and isinstance(got, dict)
            and wanted["state"] != got.get("state")
        ):
            return f"{name}.state: expected {wanted['state']!r}, got {got.get('state')!r}"
    return None


def _as_asked(part: Part, reply: Reply) -> Reply:
    """The model's answer, its preload no longer than a page that may have been asked for."""
    assert part.answer is not None
    is_page = "preload" in part.data or len(_preload(reply.data)) >= MAX_PRELOAD
    if not is_page or reply.status != part.answer.status:
        return reply
    shown = {record["id"] for record in _preload(part.answer.data)}
    page = [record for record in _preload(reply.data) if record["id"] in shown]
    return Reply(reply.status, {**reply.data, "preload": page})


def _preload(data: Any) -> list[JsonObject]:
    return data.get("preload", []) if isinstance(data, dict) else []


def _tags_of(data: JsonObject) -> JsonObject:
    for inner in (data, data.get("step"), (data.get("action") or {}).get("data")):
        if isinstance(inner, dict) and isinstance(inner.get("tags"), dict):
            return dict(inner["tags"])
    return {}


# -- extensions (part B) -----------------------------------------------------------------------------


def _task_claim(state: State, data: JsonObject, now: int) -> JsonObject:
    task = tasks.existing(state, data["id"])
    if task_state(state, task, now) != "pending":
        raise Refused(409, "not there to be claimed")
    tasks.acquire(task, data, now)
    return tasks.task_with_promise(state, data["id"], now)


def _task_record(state: State, data: JsonObject, now: int) -> JsonObject:
    v.check_lease(data)
    v.demand(isinstance(data.get("step"), dict), "step: not an object")
    step = data["step"]
    v.check_promise_create(step)
    v.check_promise_settle({**data, "id": step["id"]})
    v.demand(step["id"] != data["id"], "step: the task itself")
    tasks.held(state, data, now)
    promise = create(state, step, now)
    if is_live(promise, now):
        settle(state, promise, data["state"], data.get("value", {}), now)
    return {"promise": promise_record(promise, now)}


APPLIED: Final[dict[str, Handler]] = {
    **{kind: handler for kind, handler in HANDLERS.items() if not kind.endswith(".search")},
    "promise.wait": promises.promise_get,
    "task.claim": _task_claim,
    "task.record": _task_record,
}
