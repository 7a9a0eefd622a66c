"""Schedules: the requests, and firing (protocol A4, A5.6)."""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice, takewhile

from msgspec.structs import replace

from kept.machine.backfill import backfill_key
from kept.machine.cron import expand, instants_after, last_instant, next_instant
from kept.machine.effects import put_new_promise, read_promise
from kept.machine.schedule_line import line_key, line_of, put_line
from kept.machine.step import Step
from kept.machine.tasks import NOTHING
from kept.machine.trees import kept_verdict
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.entries import Entry, ScheduleLine
from kept.protocol.limits import (
    MAX_INSTANTS_PER_STEP,
    MAX_INTEGER,
    MAX_WAITING_INSTANTS,
    MISSED_AFTER_MS,
)
from kept.protocol.records import Catchup, Overlap, ScheduleRecord
from kept.protocol.responses import BAD_REQUEST, NOT_FOUND, OK, Response, ScheduleResult
from kept.protocol.texts import id_problem


def no_schedule(id: str) -> Response:
    return Response(NOT_FOUND, f"schedule {id} does not exist")


def schedule_create(step: Step, request: r.ScheduleCreate) -> Response:
    """Idempotent by id, like a promise."""
    wanted = ScheduleRecord(
        request.id,
        request.cron,
        request.promise_id,
        request.promise_timeout,
        request.promise_param.normal(),
        request.promise_tags,
        step.now,
        0,
    )
    try:
        next_run_at = first_instant(wanted, step.now)
    except ValueError as error:
        return Response(BAD_REQUEST, str(error))
    schedule = step.records.schedule(request.id)
    if schedule is None:
        schedule = replace(wanted, next_run_at=next_run_at)
        step.records.put_schedule(schedule)
    return Response(OK, ScheduleResult(schedule))


def first_instant(schedule: ScheduleRecord, after: int) -> int:
    """The first instant after `after` (ms). Raises `ValueError` where there is none."""
    first = next_instant(schedule, after)
    if first is None:
        if schedule.every is not None:
            raise ValueError(f"every: {schedule.every} ms never comes")
        raise ValueError(f"cron: {schedule.cron!r} never fires")
    return first


def schedule_get(step: Step, request: r.ScheduleGet) -> Response:
    schedule = step.records.schedule(request.id)
    if schedule is None:
        return no_schedule(request.id)
    return Response(OK, ScheduleResult(schedule))


def schedule_delete(step: Step, request: r.ScheduleDelete) -> Response:
    if step.records.schedule(request.id) is None:
        return no_schedule(request.id)
    step.records.remove_schedule(request.id)
    for key in (line_key(request.id), backfill_key(request.id)):
        if step.records.entry(key) is not None:
            step.records.remove_entry(key)
    return NOTHING


def due_instants(schedule: ScheduleRecord, now: int) -> list[int]:
    """The instants to fire, in order, as many as one step fires: of those that were missed only
    what the schedule catches up with."""
    after = schedule.next_run_at - 1
    if schedule.paused or after >= now:
        return []
    if schedule.catchup is Catchup.LAST:
        last = last_instant(schedule, after, now)
        return [] if last is None else [last]
    if schedule.catchup is Catchup.NONE:
        after = max(after, now - MISSED_AFTER_MS)
    following = islice(instants_after(schedule, after), MAX_INSTANTS_PER_STEP)
    return list(takewhile(lambda instant: instant <= now, following))


def fire(step: Step, schedule: ScheduleRecord, instant: int) -> None:
    """Fires one instant, as of that instant; `step.now` is the instant. What must not overlap waits
    or is left out."""
    if schedule.overlap is Overlap.ALLOW:
        create_occurrence(step, schedule, instant)
        return
    line = line_of(step, schedule.id)
    queued = schedule.overlap is Overlap.QUEUE
    # What waited in line when the schedule was put to skip is left out, and in nobody's way.
    if not (queued and line.waiting) and not is_running(step, line):
        put_line(step, schedule.id, ScheduleLine(_fired(step, schedule, instant)))
    elif queued and len(line.waiting) < MAX_WAITING_INSTANTS:
        # Where it was about to go on, it still is.
        entry = step.records.entry(line_key(schedule.id))
        assert entry is not None
        waiting = replace(line, waiting=(*line.waiting, instant))
        put_line(step, schedule.id, waiting, entry.due_at)


def is_running(step: Step, line: ScheduleLine) -> bool:
    """Whether what was fired last is not settled."""
    if not line.last:
        return False
    promise = read_promise(step, line.last)
    return promise is not None and promise.pending


def _fired(step: Step, schedule: ScheduleRecord, instant: int) -> str:
    create_occurrence(step, schedule, instant)
    return expand(schedule.promise_id, schedule.id, instant)


def look_at_line(step: Step, entry: Entry) -> None:
    """Fires the first instant that waits, as of now, if nothing is in its way any more."""
    id = entry.key.name
    schedule = step.records.schedule(id)
    if schedule is None:
        step.records.remove_entry(entry.key)
        return
    assert isinstance(entry.data, ScheduleLine)
    line = entry.data
    if schedule.overlap is Overlap.SKIP:
        line = replace(line, waiting=())
    queued = schedule.overlap is Overlap.QUEUE
    if schedule.paused or not line.waiting or (queued and is_running(step, line)):
        put_line(step, id, line)
        return
    instant, *waiting = line.waiting
    line = ScheduleLine(_fired(step, schedule, instant), tuple(waiting))
    goes_on = bool(waiting) and not (queued and is_running(step, line))
    put_line(step, id, line, step.now if goes_on else None)


def create_occurrence(step: Step, schedule: ScheduleRecord, instant: int) -> None:
    """Creates the promise of one instant, whose deadline counts from `step.now`.

    The id is the key, so an instant that was fired before changes nothing.
    """
    create = occurrence(schedule, instant, step.now)
    if id_problem(create.id) is not None or read_promise(step, create.id) is not None:
        return
    if kept_verdict(step, create) is None:
        put_new_promise(step, create)


def occurrence(
    schedule: ScheduleRecord, stamp: int | str, now: int, *, id: str | None = None
) -> r.PromiseCreate:
    """The promise that a schedule fires at an instant, or under an id of its own."""
    id = id or expand(schedule.promise_id, schedule.id, stamp)
    tags = {
        **schedule.promise_tags,
        tag.SCHEDULE: schedule.id,
        tag.ORIGIN: id,
        tag.BRANCH: id,
        tag.PARENT: id,
    }
    if schedule.jitter and isinstance(stamp, int):
        tags[tag.DELAY] = str(stamp + _jitter(schedule, stamp))
    timeout_at = min(now + schedule.promise_timeout, MAX_INTEGER)
    if int(tags.get(tag.DELAY, 0)) >= timeout_at:
        # A delay is an instant, and a schedule outlives it: it delays nothing beyond a deadline.
        del tags[tag.DELAY]
    return r.PromiseCreate(id, timeout_at, schedule.promise_param, tags)


def _jitter(schedule: ScheduleRecord, instant: int) -> int:
    """By how much (ms) the work of an instant is delayed: always the same for the same instant."""
    seed = f"{schedule.id}\n{instant}".encode()
    number = int.from_bytes(blake2b(seed, digest_size=8).digest(), "big")
    return number % (schedule.jitter + 1)


def advance(step: Step, schedule: ScheduleRecord, fired: list[int]) -> None:
    """Moves the schedule's clock past the instants that were fired, or past those that were missed."""
    last = fired[-1] if fired else schedule.last_run_at
    next_run_at = next_instant(schedule, fired[-1] if fired else step.now)
    # One that never fires again waits at the end of time.
    next_run_at = MAX_INTEGER if next_run_at is None else next_run_at
    step.records.put_schedule(replace(schedule, last_run_at=last, next_run_at=next_run_at))
