"""The requests that go beyond `schedule.create` (protocol B10)."""

from __future__ import annotations

from msgspec.structs import replace

from kept.machine.backfill import put_spans, spans_of
from kept.machine.cron import expand, next_instant
from kept.machine.effects import put_new_promise, read_promise
from kept.machine.schedule_line import go_on, line_of, put_line
from kept.machine.schedules import first_instant, no_schedule, occurrence
from kept.machine.step import Step
from kept.protocol import schedule_requests as s
from kept.protocol.entries import Span
from kept.protocol.limits import MAX_BACKFILL_SPANS, MAX_INTEGER
from kept.protocol.records import Catchup, Overlap, ScheduleRecord
from kept.protocol.responses import (
    BAD_REQUEST,
    CONFLICT,
    OK,
    PromiseResult,
    Response,
    ScheduleResult,
)
from kept.protocol.texts import id_problem


def schedule_put(step: Step, request: s.SchedulePut) -> Response:
    """Creates a schedule, or changes one and keeps its clock.

    With the same rhythm, what is due next stays due, also if it is overdue. Another rhythm begins
    now: what would have been its past does not fire.
    """
    before = step.records.schedule(request.id)
    after = _wanted(request, step.now if before is None else before.created_at)
    try:
        next_run_at = first_instant(after, step.now)
    except ValueError as error:
        return Response(BAD_REQUEST, str(error))
    if before is None:
        after = replace(after, next_run_at=next_run_at, paused=bool(request.paused))
    else:
        if _same_rhythm(before, after):
            next_run_at = before.next_run_at
        elif before.last_run_at is not None:
            next_run_at = first_instant(after, max(step.now, before.last_run_at))
        after = replace(
            after, next_run_at=next_run_at, last_run_at=before.last_run_at, paused=before.paused
        )
        if before.overlap is Overlap.ALLOW and after.overlap is not Overlap.ALLOW:
            _line_up(step, before)
        if request.paused is not None and request.paused is not before.paused:
            after = replace(after, paused=True) if request.paused else _resumed(step, after)
        elif after.overlap is not before.overlap:
            go_on(step, request.id)
    if after != before:
        step.records.put_schedule(after)
    return Response(OK, ScheduleResult(after))


def _line_up(step: Step, schedule: ScheduleRecord) -> None:
    """What fired last, while it could overlap, is in the way of what fires from now on."""
    if schedule.last_run_at is None:
        return
    last = read_promise(step, expand(schedule.promise_id, schedule.id, schedule.last_run_at))
    if last is not None and last.pending:
        put_line(step, schedule.id, replace(line_of(step, schedule.id), last=last.id))


def _wanted(request: s.SchedulePut, created_at: int) -> ScheduleRecord:
    return ScheduleRecord(
        request.id,
        request.cron or "",
        request.promise_id,
        request.promise_timeout,
        request.promise_param.normal(),
        request.promise_tags,
        created_at,
        0,
        every=request.every,
        zone=request.zone,
        jitter=request.jitter,
        overlap=request.overlap,
        catchup=request.catchup,
    )


def _same_rhythm(one: ScheduleRecord, other: ScheduleRecord) -> bool:
    return (one.cron, one.every, one.zone) == (other.cron, other.every, other.zone)


def schedule_pause(step: Step, request: s.SchedulePause) -> Response:
    """Nothing fires from now on, and what waits in line does not either."""
    schedule = step.records.schedule(request.id)
    if schedule is None:
        return no_schedule(request.id)
    if not schedule.paused:
        schedule = replace(schedule, paused=True)
        step.records.put_schedule(schedule)
    return Response(OK, ScheduleResult(schedule))


def schedule_resume(step: Step, request: s.ScheduleResume) -> Response:
    """Fires again, and of what was missed what the schedule catches up with."""
    schedule = step.records.schedule(request.id)
    if schedule is None:
        return no_schedule(request.id)
    if schedule.paused:
        schedule = _resumed(step, schedule)
        step.records.put_schedule(schedule)
    return Response(OK, ScheduleResult(schedule))


def _resumed(step: Step, schedule: ScheduleRecord) -> ScheduleRecord:
    go_on(step, schedule.id)
    next_run_at = schedule.next_run_at
    if schedule.catchup is Catchup.NONE and next_run_at <= step.now:
        # A pause that was meant: not even what was missed a moment ago.
        following = next_instant(schedule, step.now)
        next_run_at = MAX_INTEGER if following is None else following
    return replace(schedule, paused=False, next_run_at=next_run_at)


def schedule_trigger(step: Step, request: s.ScheduleTrigger) -> Response:
    """Fires now, paused or not, under an id of its own; neither clock nor line know of it."""
    schedule = step.records.schedule(request.id)
    if schedule is None:
        return no_schedule(request.id)
    key = request.key or step.request_id
    id = _trigger_id(schedule, key or str(step.now))
    if problem := id_problem(id):
        return Response(BAD_REQUEST, problem)
    promise = read_promise(step, id)
    number = 1
    while key is None and promise is not None:
        # Two at the same time are two.
        number += 1
        id = _trigger_id(schedule, f"{step.now}.{number}")
        promise = read_promise(step, id)
    if promise is None:
        promise = put_new_promise(step, occurrence(schedule, "", step.now, id=id))
    return Response(OK, PromiseResult(promise.record()))


def _trigger_id(schedule: ScheduleRecord, key: str) -> str:
    stamped = expand(schedule.promise_id, schedule.id, f"trigger.{key}")
    plain = expand(schedule.promise_id, schedule.id, "")
    return stamped if stamped != plain else f"{plain}.trigger.{key}"


def schedule_backfill(step: Step, request: s.ScheduleBackfill) -> Response:
    """Notes a span of the past; the background fires it, in order and durably."""
    schedule = step.records.schedule(request.id)
    if schedule is None:
        return no_schedule(request.id)
    # What is later comes by itself.
    span = Span(request.since, min(request.until, step.now + 1))
    spans = spans_of(step, request.id)
    if span.since < span.until and span not in spans:
        if len(spans) >= MAX_BACKFILL_SPANS:
            return Response(CONFLICT, f"schedule {request.id} has {len(spans)} spans to fire yet")
        put_spans(step, request.id, (*spans, span))
    return Response(OK, ScheduleResult(schedule))
