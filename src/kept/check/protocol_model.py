"""The naive sequential model of the protocol as a model for the linearizability checker.

Time. The server takes each step at an instant of its own clock, which never goes back (A3). A state
therefore knows the instant of its latest step, and a part may take place at any instant from there
on that its window allows. Which one only matters at few: those that answers show (`createdAt`,
`settledAt`), deadlines, and ends of leases. For each part these are tried, likely ones first, and
the earliest possible one for all others. Earlier is never worse: a later instant makes nothing
possible that waiting does not, so of two states with the same records the earlier one stands for
both.

Own extensions. `promise.wait` answers like a get. A claim is an acquire of what it answered (see
`protocol_parts`); its order, and that an empty one had nothing to take, are not judged. A request
asked again under the same `kept:request` gets its answer again (B1). What a search shows was stored
at some instant between its invocation and its return. How far a cancellation says that it has spread
is not judged. A component that uses what is not in the model is not judged, and its verdict says so.
An operation on the dead letters of a filter may touch any record, so a history that has one is not
judged at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from kept.check.compare import Reply, difference, level
from kept.check.history import Operation
from kept.check.model import letters, mailboxes, promises, queues, tasks
from kept.check.model.cancellation import promise_cancel
from kept.check.model.duplicates import key_names
from kept.check.model.letters import letter_record
from kept.check.model.model import HANDLERS, Handler
from kept.check.model.schedules import next_instant, schedule_record
from kept.check.model.state import (
    MAX_PRELOAD,
    NEVER,
    Refused,
    State,
    preload,
    promise_record,
    task_record,
    task_state,
)
from kept.check.protocol_background import Background, Budget
from kept.check.protocol_cancellations import WITNESSES, Cancellations
from kept.check.protocol_leases import Leases
from kept.check.protocol_names import cancels_in
from kept.check.protocol_parts import SEEN, parts_of, shown_instants
from kept.check.sequential import FOREVER, JsonObject, Part, Setting
from kept.check.snapshots import Snapshot, Workspace

DEFAULT_BUDGET_MODEL_STEPS: Final = 4_000_000
MAX_SHOWN_CHARACTERS: Final = 600
REPEATABLE: Final = frozenset(
    f"task.{verb}"
    for verb in ("acquire", "claim", "release", "fulfill", "suspend", "record", "nack")
)
RESUMED: Final = "300"
# What these leave depends on their instant only by `createdAt`, `settledAt` and deadlines; others
# leave a lease, whose end does.
WITHOUT_LEASE: Final = frozenset(
    {
        *("promise.create", "promise.settle", "promise.cancel", "promise.register_callback"),
        "task.release",
        *("task.fulfill", "task.suspend", "task.fence", "task.record", "task.halt"),
        *("task.continue", "signal.send", "task.annotate"),
    }
)


# These may change nothing, and something after others, with the same answer.
WAVERING: Final = frozenset(
    {"task.halt", "task.suspend", "task.heartbeat", "task.annotate", "schedule.create"}
)
FIRST_REFUSAL: Final = 400
PLAIN_FIELDS: Final = ("state", "version", "settledAt", "createdAt", "resumes", "pid", "timeoutAt")


def _is_bulk(operation: Operation) -> bool:
    is_one = (
        operation.kind in ("dead.replay", "dead.purge") and operation.data.get("filter") is not None
    )
    return is_one and not operation.data.get("dryRun")


class ProtocolModel:
    """Judges histories of the base protocol and of the extensions named above."""

    def __init__(self, budget_model_steps: int = DEFAULT_BUDGET_MODEL_STEPS) -> None:
        """It takes so many steps for each component, then does not judge it."""
        self._budget = Budget(budget_model_steps)
        self._leases = Leases()
        self._cancellations = Cancellations()
        self._background = Background({}, self._cancellations, self._budget)
        # Operations on all dead letters of a filter.
        self._bulks = 0
        # Targets whose settled trees may leave while somebody looks, and those that may be paused.
        self._leaving: set[str] = set()
        self._paused: set[str] = set()

    def parts(self, operations: Sequence[Operation], skew_ms: float | None) -> Iterable[Part]:
        self._bulks = sum(_is_bulk(operation) for operation in operations)
        self._leaving = {
            f"queue://{operation.data['name']}"
            for operation in operations
            if operation.kind == "queue.put" and operation.data.get("retention") is not None
        }
        self._paused = {
            f"queue://{operation.data['name']}"
            for operation in operations
            if operation.kind == "queue.pause"
            or (operation.kind == "queue.put" and operation.data.get("paused"))
        }
        parts = parts_of(operations, skew_ms)
        self._leases = Leases(parts)
        self._cancellations = Cancellations(parts)
        self._background = Background(shown_instants(operations), self._cancellations, self._budget)
        return [*parts, *self._cancellations.witnesses()]

    def limitation(self, setting: Setting) -> str | None:
        self._budget.renew()
        judged = APPLIED.keys() | SEEN | WITNESSES
        unknown = Counter(part.kind for part in setting.parts if part.kind not in judged)
        for part in setting.parts:
            if part.data.get("dryRun"):
                unknown["dryRun"] += 1
            if _tags_of(part).get("resonate:target") in self._leaving:
                unknown["retention"] += 1
            if _tags_of(part).get("resonate:target") in self._paused:
                unknown["paused queue"] += 1
            if part.kind == "task.nack" and part.data.get("reason") == "unregistered":
                # What became of it depends on who announced what.
                unknown["task.nack unregistered"] += 1
        if self._bulks:
            unknown["dead letters by filter"] = self._bulks
        if not unknown:
            return None
        names = ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items()))
        return f"not in the model: {names}"

    def initial(self, setting: Setting) -> Snapshot:
        return Snapshot()

    def is_unchanged(self, before: Snapshot, after: Snapshot) -> bool:
        return before == after

    def stays_idle(self, part: Part) -> bool:
        is_refused = part.answer is not None and part.answer.status >= FIRST_REFUSAL
        return is_refused or (part.kind not in WAVERING and "kept:debounce" not in _tags_of(part))

    def time(self, state: Snapshot) -> int:
        return state.time

    def show(self, state: Snapshot) -> JsonObject:
        return state.as_json()

    def successors(self, state: Snapshot, part: Part) -> Iterator[Snapshot]:
        # The earliest with each state's records.
        found: dict[Snapshot, int] = {}
        unlikely: list[Snapshot] = []
        if part.kind in SEEN:
            for before in self._background.states(state, part, max(state.time, part.latest)):
                if _seen(before, part):
                    yield before
            return
        if part.is_witness:
            yield from self._witnessed(state, part)
            return
        for time in self._times(state, part):
            for before in self._background.states(state, part, time):
                self._budget.spend()
                reply, after = _applied(before, part, time)
                if part.answer is not None and not _fits(part, reply):
                    continue
                if part.answer is None and not self._leases.allow(part, state, after):
                    continue
                if found.get(after, NEVER) > after.time:
                    found[after] = after.time
                    if self._leases.foretell(state, after):
                        yield after
                    else:
                        unlikely.append(after)
        yield from unlikely

    def _witnessed(self, state: Snapshot, part: Part) -> Iterator[Snapshot]:
        """The states in which it is so at the instant that was shown."""
        if state.time <= part.data["at"] and part.data["id"] in state.promises:
            for before in self._background.states(state, part, part.data["at"]):
                yield from self._cancellations.witnessed(before, part)

    def may_swap(
        self, states: tuple[Snapshot, Snapshot, Snapshot], first: Part, second: Part
    ) -> bool:
        """They may, where neither touches what the other names or touches, and where `first` can
        be as late as `second` without anybody being able to tell."""
        before, between, after = states
        if not set(first.keys).isdisjoint(second.keys):
            return False
        ours = _with_causes(before.touched(between), between).union(first.keys)
        theirs = _with_causes(between.touched(after), after).union(second.keys)
        if not ours.isdisjoint(theirs):
            return False
        if after.time == between.time:
            return True
        # When it was matters to the end of a grace, or of a window.
        is_fixed = any(True for _ in cancels_in(first.kind, first.data))
        is_fixed = is_fixed or bool(key_names(_tags_of(first)))
        if first.kind not in WITHOUT_LEASE or is_fixed or between.time in first.instants:
            return False
        deadlines = (
            state.promises[id]["timeoutAt"]
            for state in (before, between)
            for id in ours
            if id in state.promises
        )
        return not any(between.time < deadline <= after.time for deadline in deadlines)

    def expected(self, state: Snapshot, part: Part) -> str:
        times = list(self._times(state, part))
        if not times:
            span = f"{part.earliest} to {part.latest}"
            return f"its instant lies in {span}, but {state.time} has been reached before it"
        assert part.answer is not None
        if part.is_witness:
            return f"{part.data['id']} was canceled at {part.data['at']}, by nobody who may"
        if part.kind in SEEN:
            looked = Workspace(state).state
            record = _looked_up(looked, part.kind, part.data["id"], times[0])
            reply = Reply(200, record or {})
        else:
            reply, _ = _applied(state, part, times[0])
        actual = Reply(part.answer.status, part.answer.data)
        place = _state_difference(reply, actual)
        place = place or difference(part.kind, _as_asked(part, reply), actual)
        if place is None:
            return f"only an instant outside of {part.earliest} to {part.latest} would fit"
        data = msgspec.json.encode(reply.data).decode()
        return f"{place} (the model answers {reply.status} {data[:MAX_SHOWN_CHARACTERS]})"

    def _times(self, state: Snapshot, part: Part) -> Iterator[int]:
        """The instants (ms) worth trying."""
        start = max(state.time, part.earliest)
        if part.latest < start:
            return
        instants = (
            *part.instants,
            *_nacked_at(state, part),
            *_due_again_at(state, part),
            *self._background.given_up_at(state, part),
            *self._background.deadlines_to_come(state, part),
        )
        shown = [at for at in instants if start < at <= part.latest]
        if shown:
            yield shown[0]
        yield start
        yield from shown[1:]
        if state.next_instant <= part.latest:
            yield from (at for at in state.instants(start, part.latest) if at not in shown)
        yield from (at for at in _fired_later(state, part.latest) if at > start and at not in shown)
        if part.kind == "dead.replay" and start < part.latest < FOREVER:
            # Its deadline is as long after it, and perhaps nobody else shows when that was.
            yield part.latest


def _nacked_at(state: Snapshot, part: Part) -> Iterator[int]:
    """When a nack was, by when it made its task due again."""
    task = state.tasks.get(str(part.data.get("id", "")))
    if part.kind != "task.nack" or "retryAt" not in part.data or task is None:
        return
    tags = state.promises[task["id"]]["tags"]
    for span in {queues.nack_span(part.data, tags, task["failures"] + more) for more in (0, 1)}:
        yield part.data["retryAt"] - span.most
        yield part.data["retryAt"] - span.least


def _fired_later(state: Snapshot, latest: int) -> Iterator[int]:
    """When a schedule that nobody looked at since it was due has fired again."""
    for schedule in state.schedules.values():
        at = schedule["nextRunAt"]
        while at <= latest and (at := next_instant(schedule["cron"], at)) <= latest:
            yield at


def _due_again_at(state: Snapshot, part: Part) -> Iterator[int]:
    """When what a claim took was due again, if a lease ended right before: at the earliest."""
    task = state.tasks.get(str(part.data.get("id", "")))
    if part.kind == "task.claim" and task is not None and task["state"] == "acquired":
        span = queues.backoff(state.promises[task["id"]]["tags"], task["failures"] + 1)
        yield task["expiresAt"] + span.least


def _with_causes(touched: set[str], state: Snapshot) -> set[str]:
    """With those from which a cancellation may have come."""
    if not state.spreads:
        return touched
    parents = (
        state.promises[id]["tags"].get("resonate:parent") for id in touched & state.promises.keys()
    )
    return touched.union(parent for parent in parents if parent is not None)


def _applied(state: Snapshot, part: Part, time: int) -> tuple[Reply, Snapshot]:
    """What the model answers at `time`, and the state that this leaves."""
    task = str(part.data.get("id", ""))
    is_repeatable = part.request_id is not None and part.kind in REPEATABLE
    workspace = Workspace(state)
    if is_repeatable and part.request_id:
        again = _again(state, workspace.state, part, task, time)
        if again is not None:
            return again, workspace.snapshot(time)
    try:
        answer = APPLIED[part.kind](workspace.state, part.data, time)
    except Refused as refusal:
        return Reply(refusal.status, refusal.text), state.at(time)
    status, data = answer if isinstance(answer, tuple) else (200, answer)
    after = workspace.snapshot(time)
    if is_repeatable:
        told = msgspec.json.encode(data).decode() if part.kind == "task.nack" else str(status)
        request = (str(part.request_id), part.kind, told)
        after = after.remembering(task, request if part.request_id else None)
    return Reply(status, data), after


def _again(state: Snapshot, looked: State, part: Part, task: str, time: int) -> Reply | None:
    """The answer to a request that was the task's last one already (B1)."""
    id, kind, told = state.requests.get(task, ("", "", ""))
    if id != part.request_id or kind != part.kind:
        return None
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
        case "task.suspend" if told == RESUMED:
            return Reply(int(RESUMED), {"preload": preload(looked, task, time)})
        case "task.nack":
            return Reply(200, msgspec.json.decode(told))
    return Reply(200, {})


def _fits(part: Part, reply: Reply) -> bool:
    assert part.answer is not None
    if reply.status != part.answer.status:
        return False
    if reply.status >= 400 or reply.data == part.answer.data:
        return True
    actual = Reply(part.answer.status, part.answer.data)
    if _differ_plainly(reply.data, actual.data):
        return False
    return difference(part.kind, _as_asked(part, reply), actual) is None


def _differ_plainly(expected: Any, actual: Any) -> bool:
    """Whether a promise or a task differs in what the protocol leaves nothing open in: mostly it is
    this, and to see it costs little."""
    if not isinstance(expected, dict) or not isinstance(actual, dict):
        return False
    for name in ("task", "promise"):
        wanted, got = expected.get(name), actual.get(name)
        if not isinstance(wanted, dict) or not isinstance(got, dict):
            continue
        if any(wanted.get(each) != got.get(each) for each in PLAIN_FIELDS):
            return True
    return False


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
    """The model's answer, its preload cut to the page that was answered, if that says that there is
    more, or none was asked for. Where a page ends, the server may choose."""
    assert part.answer is not None
    told = part.answer.data
    more = told.get("more") if isinstance(told, dict) else None
    is_page = more is not None or part.data.get("preload") == 0
    is_page = is_page or len(_preload(reply.data)) >= MAX_PRELOAD
    if not is_page or reply.status != part.answer.status:
        return reply
    shown = {record["id"] for record in _preload(part.answer.data)}
    page = [record for record in _preload(reply.data) if record["id"] in shown]
    data = {**reply.data, "preload": page}
    if more is not None:
        data["more"] = more
    if "released" in data:
        data["released"] = [id for id in data["released"] if id in shown]
    if not data.get("released", True):
        del data["released"]
    return Reply(reply.status, data)


def _preload(data: Any) -> list[JsonObject]:
    return data.get("preload", []) if isinstance(data, dict) else []


def _tags_of(part: Part) -> JsonObject:
    data = part.data
    for inner in (data, data.get("step"), (data.get("action") or {}).get("data")):
        if isinstance(inner, dict) and isinstance(inner.get("tags"), dict):
            return dict(inner["tags"])
    return {}


# -- what is looked at without a step (A10) ----------------------------------------------------------


def _seen(state: Snapshot, part: Part) -> bool:
    """Whether a record that a search or a page shows is as it is stored, projected by the clock of
    whoever searched: that clock decides nothing, so it may be ahead of the steps."""
    looked = Workspace(state).state
    id = part.data["id"]
    assert part.answer is not None
    for now in {max(state.time, part.earliest), max(state.time, part.latest)}:
        record = _looked_up(looked, part.kind, id, now)
        if record == part.answer.data or level(record) == level(part.answer.data):
            return True
    return False


def _looked_up(state: State, kind: str, id: str, now: int) -> JsonObject | None:
    match kind:
        case "promise.seen" if id in state.promises:
            return {"promise": promise_record(state.promises[id], now)}
        case "task.seen" if id in state.tasks:
            return {"task": task_record(state, state.tasks[id], now)}
        case "schedule.seen" if id in state.schedules:
            return {"schedule": schedule_record(state.schedules[id])}
        case "dead.seen" if id in state.letters:
            return {"letter": letter_record(state.letters[id])}
    return None


APPLIED: Final[dict[str, Handler]] = {
    **{kind: handler for kind, handler in HANDLERS.items() if not kind.endswith(".search")},
    "promise.wait": promises.promise_get,
    "promise.cancel": promise_cancel,
    "task.claim": queues.task_claim,
    "task.claim handed back": queues.hand_back,
    "task.nack": queues.task_nack,
    "task.record": queues.task_record_step,
    "signal.send": mailboxes.signal_send,
    "task.annotate": mailboxes.task_annotate,
    "dead.get": letters.dead_get,
    "dead.replay": letters.dead_replay,
}
