"""Schedules: the requests, and firing (protocol A4, A5.6)."""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from kept.machine.cron import expand, instants_after, next_instant
from kept.machine.effects import put_new_promise, read_promise
from kept.machine.step import Step
from kept.machine.tasks import NOTHING
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INSTANTS_PER_STEP, MAX_INTEGER
from kept.protocol.records import ScheduleRecord
from kept.protocol.responses import BAD_REQUEST, NOT_FOUND, OK, Response, ScheduleResult
from kept.protocol.texts import id_problem


def no_schedule(id: str) -> Response:
    return Response(NOT_FOUND, f"schedule {id} does not exist")


def schedule_create(step: Step, request: r.ScheduleCreate) -> Response:
    """Idempotent by id, like a promise."""
    try:
        next_run_at = next_instant(request.cron, step.now)
    except ValueError as error:
        return Response(BAD_REQUEST, str(error))
    if next_run_at is None:
        return Response(BAD_REQUEST, f"cron: {request.cron!r} never fires")
    schedule = step.records.schedule(request.id)
    if schedule is None:
        schedule = ScheduleRecord(
            request.id,
            request.cron,
            request.promise_id,
            request.promise_timeout,
            request.promise_param.normal(),
            request.promise_tags,
            step.now,
            next_run_at,
        )
        step.records.put_schedule(schedule)
    return Response(OK, ScheduleResult(schedule))


def schedule_get(step: Step, request: r.ScheduleGet) -> Response:
    schedule = step.records.schedule(request.id)
    if schedule is None:
        return no_schedule(request.id)
    return Response(OK, ScheduleResult(schedule))


def schedule_delete(step: Step, request: r.ScheduleDelete) -> Response:
    if step.records.schedule(request.id) is None:
        return no_schedule(request.id)
    step.records.remove_schedule(request.id)
    return NOTHING


def due_instants(schedule: ScheduleRecord, now: int) -> list[int]:
    """The missed instants in order, as many as one step fires."""
    missed: list[int] = []
    following = instants_after(schedule.cron, schedule.next_run_at - 1)
    for instant in islice(following, MAX_INSTANTS_PER_STEP):
        if instant > now:
            break
        missed.append(instant)
    return missed


def fire(step: Step, schedule: ScheduleRecord, instant: int) -> None:
    """Creates the promise of one instant, as of that instant; `step.now` is the instant.

    The id is the key, so an instant that was fired before changes nothing.
    """
    create = occurrence(schedule, instant)
    if id_problem(create.id) is None and read_promise(step, create.id) is None:
        put_new_promise(step, create)


def occurrence(schedule: ScheduleRecord, instant: int) -> r.PromiseCreate:
    """The promise that a schedule fires at an instant."""
    id = expand(schedule.promise_id, schedule.id, instant)
    tags = {
        **schedule.promise_tags,
        tag.SCHEDULE: schedule.id,
        tag.ORIGIN: id,
        tag.BRANCH: id,
        tag.PARENT: id,
    }
    timeout_at = min(instant + schedule.promise_timeout, MAX_INTEGER)
    if int(tags.get(tag.DELAY, 0)) >= timeout_at:
        # A delay is an instant, and a schedule outlives it: it delays nothing beyond a deadline.
        del tags[tag.DELAY]
    return r.PromiseCreate(id, timeout_at, schedule.promise_param, tags)


def advance(step: Step, schedule: ScheduleRecord, fired: list[int]) -> None:
    """Moves the schedule's clock past the instants that were fired."""
    last = fired[-1]
    next_run_at = next_instant(schedule.cron, last)
    # One that never fires again waits at the end of time.
    next_run_at = MAX_INTEGER if next_run_at is None else next_run_at
    step.records.put_schedule(replace(schedule, last_run_at=last, next_run_at=next_run_at))
