"""The field checks that types cannot express: what is answered with 400 before any record is read.

`problem_with` returns the text of the first problem, or None. It reads nothing but the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import tags as tag
from kept.protocol.addresses import is_deliverable, is_target
from kept.protocol.attributes import attribute_problem
from kept.protocol.entries import LaneLimits, RateLimit
from kept.protocol.guard_checks import GUARD_CHECKS
from kept.protocol.inquiries import INQUIRY_CHECKS
from kept.protocol.keys import keys_problem, no_keys_problem
from kept.protocol.limits import (
    MAX_ATTEMPTS,
    MAX_ATTRIBUTES,
    MAX_CANCEL_REASON_BYTES,
    MAX_INTEGER,
    MAX_LANE_WEIGHT,
    MAX_MESSAGE_KEY_BYTES,
    MAX_NAMED_LANES,
    MAX_PAYLOAD_BYTES,
    MAX_PRIORITY,
    MAX_RATE_PERIOD_MS,
    MAX_REPLAYS_PER_REQUEST,
    MAX_TAGS,
    MAX_TAGS_BYTES,
    MIN_RETENTION_MS,
)
from kept.protocol.mailboxes import mailbox_problem
from kept.protocol.records import SETTABLE, PromiseState, Value
from kept.protocol.texts import id_problem, queue_problem, text_size
from kept.protocol.worker_requests import WORKER_CHECKS

Schemes = frozenset[str]


def problem_with(request: r.Request, schemes: Schemes) -> str | None:
    """What is wrong with a request's fields; `schemes` are those that transports serve."""
    check = _CHECKS.get(type(request))
    return check(request, schemes) if check else None


def settable_problem(state: PromiseState) -> str | None:
    """Why a client may not settle into `state`."""
    if state in SETTABLE:
        return None
    return f"state: {state.value} is not one of resolved, rejected, rejected_canceled"


def create_problem(create: r.PromiseCreate, schemes: Schemes) -> str | None:
    """What is wrong with a promise to be created."""
    return (
        id_problem(create.id)
        or value_problem(create.param, "param")
        or _tags_problem(create.tags, create.timeout_at, schemes)
    )


def settle_problem(settle: r.PromiseSettle) -> str | None:
    """What is wrong with a settlement."""
    return (
        id_problem(settle.id)
        or settable_problem(settle.state)
        or value_problem(settle.value, "value")
    )


def cancel_problem(cancel: r.PromiseCancel) -> str | None:
    """What is wrong with a cancellation."""
    size = text_size(cancel.reason or "")
    if size < 0:
        return "reason: must be valid Unicode text without NUL characters"
    if size > MAX_CANCEL_REASON_BYTES:
        return f"reason: is {size} bytes long, the limit is {MAX_CANCEL_REASON_BYTES}"
    return id_problem(cancel.id)


def value_problem(value: Value, field: str) -> str | None:
    """Why a payload cannot be stored."""
    size = 0
    if value.data is not None:
        size = text_size(value.data)
    for name, text in (value.headers or {}).items():
        sizes = (text_size(name), text_size(text))
        size = -1 if min(sizes) < 0 or size < 0 else size + sum(sizes)
    if size < 0:
        return f"{field}: must be valid Unicode text without NUL characters"
    if size > MAX_PAYLOAD_BYTES:
        return f"{field}: is larger than {MAX_PAYLOAD_BYTES} bytes; store a reference to it instead"
    return None


def _tags_problem(tags: dict[str, str], timeout_at: int, schemes: Schemes) -> str | None:
    if not tags:
        return None
    if len(tags) > MAX_TAGS:
        return f"tags: {len(tags)} of them, the limit is {MAX_TAGS}"
    size = 0
    for name, text in tags.items():
        sizes = (text_size(name), text_size(text))
        if min(sizes) < 0:
            return "tags: must be valid Unicode text without NUL characters"
        size += sum(sizes)
    if size > MAX_TAGS_BYTES:
        return f"tags: {size} bytes, the limit is {MAX_TAGS_BYTES}"
    target = tags.get(tag.TARGET)
    if target is not None and not is_target(target, schemes):
        return f"tags: {tag.TARGET} is not an address that can be served: {target[:200]}"
    return (
        _delay_problem(tags, timeout_at)
        or _job_tags_problem(tags)
        or keys_problem(tags, id_problem, whole_number)
    )


def _delay_problem(tags: dict[str, str], timeout_at: int) -> str | None:
    delay = tags.get(tag.DELAY)
    if delay is None:
        return None
    if tag.TARGET not in tags:
        return f"tags: {tag.DELAY} needs {tag.TARGET}"
    instant = whole_number(delay)
    if instant is None:
        return f"tags: {tag.DELAY} must be a whole number of milliseconds since the epoch"
    if instant >= timeout_at:
        return f"tags: {tag.DELAY} must be before timeoutAt"
    return None


def _job_tags_problem(tags: dict[str, str]) -> str | None:
    for name, low, high in ((tag.PRIORITY, 0, MAX_PRIORITY), (tag.ATTEMPTS, 1, MAX_ATTEMPTS)):
        text = tags.get(name)
        if text is not None:
            number = whole_number(text)
            if number is None or not low <= number <= high:
                return f"tags: {name} must be a whole number from {low} to {high}"
    exhausted = tags.get(tag.EXHAUSTED)
    if exhausted not in (None, "reject", "halt"):
        return f"tags: {tag.EXHAUSTED} must be reject or halt"
    backoff = tags.get(tag.BACKOFF)
    if backoff is not None and parse_backoff(backoff) is None:
        return (
            f"tags: {tag.BACKOFF} must be fixed:B, linear:B:MAX, exponential:B:MAX, "
            "full_jitter:B:MAX or equal_jitter:B:MAX, in milliseconds"
        )
    return None


def whole_number(text: str) -> int | None:
    """The number that decimal digits spell, within what travels safely; None for other text."""
    if not (text.isascii() and text.isdigit()) or len(text) > 16:
        return None
    number = int(text)
    return number if number <= MAX_INTEGER else None


def parse_backoff(text: str) -> tuple[str, int, int] | None:
    """A backoff policy as (name, base ms, maximum ms); None where it is not one (B2)."""
    name, *parts = text.split(":")
    numbers = [whole_number(part) for part in parts]
    if name not in ("fixed", "linear", "exponential", "full_jitter", "equal_jitter"):
        return None
    if len(numbers) != (1 if name == "fixed" else 2) or None in numbers:
        return None
    base = numbers[0]
    limit = numbers[-1]
    assert base is not None and limit is not None
    return name, base, limit


def _ids_problem(ids: Iterable[str], field: str) -> str | None:
    for text in ids:
        if problem := id_problem(text, field):
            return problem
    return None


def _id_only(request: Any, _: Schemes) -> str | None:
    return id_problem(request.id)


def _settle(request: r.PromiseSettle, _: Schemes) -> str | None:
    return settle_problem(request)


def _cancel(request: r.PromiseCancel, _: Schemes) -> str | None:
    return cancel_problem(request)


def _register_callback(request: r.PromiseRegisterCallback, _: Schemes) -> str | None:
    if request.awaited == request.awaiter:
        return "awaiter: a promise cannot await itself"
    return id_problem(request.awaited, "awaited") or id_problem(request.awaiter, "awaiter")


def _register_listener(request: r.PromiseRegisterListener, schemes: Schemes) -> str | None:
    if problem := id_problem(request.awaited, "awaited"):
        return problem
    if text_size(request.address) < 0 or not is_deliverable(request.address, schemes):
        return f"address: is not one that can be served: {request.address[:200]!r}"
    return None


def _holder(request: r.TaskAcquire, _: Schemes) -> str | None:
    return id_problem(request.id) or id_problem(request.pid, "pid")


def _task_create(request: r.TaskCreate, schemes: Schemes) -> str | None:
    create = request.action.data
    if problem := id_problem(request.pid, "pid") or create_problem(create, schemes):
        return problem
    if tag.DEBOUNCE in create.tags:
        return f"tags: {tag.DEBOUNCE} puts work off, and task.create starts it"
    return None if tag.TARGET in create.tags else f"action: needs the tag {tag.TARGET}"


def _task_fulfill(request: r.TaskFulfill, _: Schemes) -> str | None:
    if request.action.data.id != request.id:
        return "action: must settle the task's own promise"
    return settle_problem(request.action.data) or _ids_problem(request.released, "released")


def _task_suspend(request: r.TaskSuspend, _: Schemes) -> str | None:
    if not request.actions:
        return "actions: must not be empty"
    seen: set[str] = set()
    for action in request.actions:
        awaited = action.data.awaited
        if action.data.awaiter != request.id:
            return "actions: every awaiter must be the task itself"
        if awaited == request.id:
            return "actions: a task cannot await itself"
        if awaited in seen:
            return f"actions: {awaited[:200]} is awaited twice"
        if problem := id_problem(awaited, "awaited"):
            return problem
        seen.add(awaited)
    return id_problem(request.id) or _ids_problem(request.released, "released")


def _task_fence(request: r.TaskFence, _: Schemes) -> str | None:
    # The action's own fields are judged under the lease: their 400 is the inner status.
    if request.action.data.id == request.id:
        return "action: must be for another promise than the task's own"
    return id_problem(request.id) or _ids_problem(request.released, "released")


def _task_record(request: r.TaskRecordStep, schemes: Schemes) -> str | None:
    if request.step.id == request.id:
        return "step: must be another promise than the task's own"
    return (
        id_problem(request.id)
        or create_problem(request.step, schemes)
        or no_keys_problem(request.step.tags, "mean nothing for a finished step")
        or settable_problem(request.state)
        or value_problem(request.value, "value")
        or _ids_problem(request.released, "released")
    )


def _task_heartbeat(request: r.TaskHeartbeat, _: Schemes) -> str | None:
    return id_problem(request.pid, "pid") or _ids_problem((t.id for t in request.tasks), "tasks")


def _task_claim(request: r.TaskClaim, _: Schemes) -> str | None:
    if len(set(request.queues)) != len(request.queues):
        return "queues: one is named twice"
    return (
        id_problem(request.pid, "pid")
        or next(filter(None, (queue_problem(queue, "queues") for queue in request.queues)), None)
        or _ids_problem(request.functions or (), "functions")
    )


def _task_nack(request: r.TaskNack, _: Schemes) -> str | None:
    if request.final not in (None, "reject", "halt"):
        return "final: must be reject or halt"
    if request.reason is not None and (problem := id_problem(request.reason, "reason")):
        return problem
    if request.error is not None and (problem := value_problem(request.error, "error")):
        return problem
    return id_problem(request.id)


def _queue_put(request: r.QueuePut, _: Schemes) -> str | None:
    if problem := _queue_name(request, frozenset()):
        return problem
    for field, value in (("concurrency", request.concurrency), ("maxDepth", request.max_depth)):
        if isinstance(value, int) and not 1 <= value <= MAX_INTEGER:
            return f"{field}: must be a whole number from 1 on, or null"
    if isinstance(request.retention, int) and request.retention < MIN_RETENTION_MS:
        return f"retention: must be at least {MIN_RETENTION_MS} ms, or null"
    if isinstance(request.rate, RateLimit) and (problem := _rate_problem(request.rate, "rate")):
        return problem
    if isinstance(request.lane, LaneLimits) and (problem := _lane_problem(request.lane, "lane")):
        return problem
    if not isinstance(request.lanes, dict):
        return None
    if len(request.lanes) > MAX_NAMED_LANES:
        return f"lanes: {len(request.lanes)} of them, the limit is {MAX_NAMED_LANES}"
    for name, limits in request.lanes.items():
        if problem := id_problem(name, "lanes") or _lane_problem(limits, f"lanes: {name[:64]}"):
            return problem
    return None


def _rate_problem(rate: RateLimit, field: str) -> str | None:
    if rate.limit >= 1 and 1 <= rate.period <= MAX_RATE_PERIOD_MS:
        return None
    return f"{field}: limit must be at least 1, period from 1 to {MAX_RATE_PERIOD_MS} ms"


def _lane_problem(lane: LaneLimits, field: str) -> str | None:
    if lane.concurrency is not None and lane.concurrency < 1:
        return f"{field}: concurrency must be at least 1"
    if lane.weight is not None and not 1 <= lane.weight <= MAX_LANE_WEIGHT:
        return f"{field}: weight must be a whole number from 1 to {MAX_LANE_WEIGHT}"
    return _rate_problem(lane.rate, field) if lane.rate is not None else None


def _queue_name(request: Any, _: Schemes) -> str | None:
    return queue_problem(request.name)


def _task_annotate(request: r.TaskAnnotate, _: Schemes) -> str | None:
    if len(request.set) > 2 * MAX_ATTRIBUTES:
        return f"set: {len(request.set)} of them, more than can be there and be taken back"
    for name, value in request.set.items():
        if problem := attribute_problem(name, value):
            return problem
    return id_problem(request.id)


def _signal_send(request: r.SignalSend, _: Schemes) -> str | None:
    if request.key is not None:
        if problem := id_problem(request.key, "key"):
            return problem
        if len(request.key.encode()) > MAX_MESSAGE_KEY_BYTES:
            return f"key: is longer than {MAX_MESSAGE_KEY_BYTES} bytes"
    return (
        id_problem(request.id)
        or mailbox_problem(request.id, request.name)
        or value_problem(request.value, "value")
    )


def _schedule(request: r.ScheduleCreate | s.SchedulePut, schemes: Schemes) -> str | None:
    return (
        id_problem(request.id)
        or id_problem(request.promise_id, "promiseId")
        or value_problem(request.promise_param, "promiseParam")
        or _tags_problem(request.promise_tags, MAX_INTEGER + 1, schemes)
        or no_keys_problem(request.promise_tags, "do not go with a schedule: each instant is one")
    )


def _schedule_put(request: s.SchedulePut, schemes: Schemes) -> str | None:
    if (request.cron is None) is (request.every is None):
        return "cron: exactly one of cron and every must be there"
    if request.zone is not None and request.every is not None:
        return "zone: goes with cron only, a period is the same on all clocks"
    if request.jitter and request.jitter >= request.promise_timeout:
        return "jitter: must be less than promiseTimeout"
    if request.jitter and tag.TARGET not in request.promise_tags:
        return f"jitter: needs the tag {tag.TARGET}, whose work it delays"
    if request.jitter and tag.DELAY in request.promise_tags:
        return f"jitter: cannot go with the tag {tag.DELAY}"
    return _schedule(request, schemes)


def _schedule_trigger(request: s.ScheduleTrigger, _: Schemes) -> str | None:
    return id_problem(request.id) or (id_problem(request.key, "key") if request.key else None)


def _schedule_backfill(request: s.ScheduleBackfill, _: Schemes) -> str | None:
    return id_problem(request.id) or (
        "to: is before from" if request.until < request.since else None
    )


def _dead_replay(request: r.DeadReplay, _: Schemes) -> str | None:
    if request.param is not None and (problem := value_problem(request.param, "param")):
        return problem
    return _dead_purge(request, _)


def _dead_purge(request: r.DeadReplay | r.DeadPurge, _: Schemes) -> str | None:
    if request.bulk is not None and (problem := id_problem(request.bulk, "bulk")):
        return problem
    if request.filter is not None:
        wanted = request.filter
        texts = (wanted.queue, wanted.function, wanted.reason, wanted.prefix)
        given = _ids_problem((text for text in texts if text is not None), "filter")
        return given or ("ids: name them, or a filter, not both" if request.ids else None)
    if not 1 <= len(request.ids) <= MAX_REPLAYS_PER_REQUEST:
        return f"ids: name 1 to {MAX_REPLAYS_PER_REQUEST} dead letters, or a filter"
    if len(set(request.ids)) != len(request.ids):
        return "ids: one is named twice"
    return _ids_problem(request.ids, "ids")


def _search(request: Any, _: Schemes) -> str | None:
    if request.cursor is not None and text_size(request.cursor) < 0:
        return "cursor: is not one that a search answered"
    for field in ("tags", "attributes"):
        wanted = getattr(request, field, None) or {}
        if any(text_size(text) < 0 for pair in wanted.items() for text in pair):
            return f"{field}: must be valid Unicode text without NUL characters"
    return None


def _children(request: r.PromiseChildren, schemes: Schemes) -> str | None:
    return id_problem(request.id) or _search(request, schemes)


def _dead_list(request: r.DeadList, schemes: Schemes) -> str | None:
    texts = (request.queue, request.function, request.reason, request.prefix)
    return _search(request, schemes) or _ids_problem((t for t in texts if t is not None), "filter")


_CHECKS: Final[dict[type[r.Request], Callable[[Any, Schemes], str | None]]] = {
    r.PromiseGet: _id_only,
    r.PromiseCreate: create_problem,
    r.PromiseSettle: _settle,
    r.PromiseRegisterCallback: _register_callback,
    r.PromiseRegisterListener: _register_listener,
    r.PromiseSearch: _search,
    r.PromiseWait: _id_only,
    r.PromiseChildren: _children,
    r.PromiseCancel: _cancel,
    r.TaskGet: _id_only,
    r.TaskCreate: _task_create,
    r.TaskAcquire: _holder,
    r.TaskRelease: _id_only,
    r.TaskFulfill: _task_fulfill,
    r.TaskSuspend: _task_suspend,
    r.TaskFence: _task_fence,
    r.TaskRecordStep: _task_record,
    r.TaskHeartbeat: _task_heartbeat,
    r.TaskHalt: _id_only,
    r.TaskContinue: _id_only,
    r.TaskSearch: _search,
    r.TaskClaim: _task_claim,
    r.TaskNack: _task_nack,
    r.QueuePut: _queue_put,
    r.QueueGet: _queue_name,
    r.QueueList: _search,
    r.QueueDelete: _queue_name,
    r.QueuePause: _queue_name,
    r.QueueResume: _queue_name,
    r.QueueStats: _queue_name,
    r.TaskAnnotate: _task_annotate,
    r.SignalSend: _signal_send,
    r.ScheduleCreate: _schedule,
    r.ScheduleGet: _id_only,
    r.ScheduleDelete: _id_only,
    r.ScheduleSearch: _search,
    s.SchedulePut: _schedule_put,
    s.SchedulePause: _id_only,
    s.ScheduleResume: _id_only,
    s.ScheduleTrigger: _schedule_trigger,
    s.ScheduleBackfill: _schedule_backfill,
    r.DeadList: _dead_list,
    r.DeadGet: _id_only,
    r.DeadReplay: _dead_replay,
    r.DeadPurge: _dead_purge,
    r.DeadBulk: _id_only,
    **GUARD_CHECKS,
    **WORKER_CHECKS,
    **INQUIRY_CHECKS,
}
