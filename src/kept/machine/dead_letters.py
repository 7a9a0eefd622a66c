"""Dead letters, one by one: reading, replaying, forgetting (protocol B4)."""

from __future__ import annotations

from msgspec.structs import replace

from kept.machine.effects import put_new_promise, put_pending, read_promise
from kept.machine.limits import depth_key
from kept.machine.not_loaded import NotLoaded
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.protocol.records import DeadLetter, Promise, TaskState, Value
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    OK,
    DeadLetterResult,
    Purge,
    Replay,
    Response,
)
from kept.protocol.storage import Reads
from kept.protocol.texts import id_problem


def dead_get(step: Step, request: r.DeadGet) -> Response:
    letter = step.records.dead_letter(request.id)
    if letter is None:
        return Response(NOT_FOUND, f"dead letter {request.id} does not exist")
    return Response(OK, DeadLetterResult(letter))


def require_replays(step: Step, ids: list[str]) -> None:
    """Asks for all ids of replays at once: one by one, each would undo those before it."""
    letters = [letter for id in ids if (letter := step.records.dead_letter(id)) is not None]
    following = {f"{letter.id}~{letter.replays + 1}" for letter in letters}
    missing = {id for id in following if not step.records.knows_object(id)}
    if missing:
        # What is created again waits in its queue, where it may be counted.
        counted = {depth_key(letter.queue) for letter in letters if letter.queue is not None}
        raise NotLoaded(Reads(objects=missing, entries=counted))


def purge(step: Step, id: str, *, dry_run: bool) -> Purge:
    """Forgets one dead letter, or tells whether it would."""
    if step.records.dead_letter(id) is None:
        return Purge(id, NOT_FOUND, f"dead letter {id} does not exist")
    if not dry_run:
        step.records.remove_dead_letter(id)
    return Purge(id, OK)


def replay(step: Step, id: str, param: Value | None, *, dry_run: bool) -> Replay:
    """Does the work of one dead letter again, or tells how it would."""
    letter = step.records.dead_letter(id)
    if letter is None:
        return Replay(id, NOT_FOUND, error=f"dead letter {id} does not exist")
    promise = read_promise(step, id)
    if letter.halted and promise is not None and promise.pending and param is None:
        return _continue(step, letter, promise, dry_run=dry_run)
    return _again_under_new_id(step, letter, param, dry_run=dry_run)


def _continue(step: Step, letter: DeadLetter, promise: Promise, *, dry_run: bool) -> Replay:
    """Halted work goes on from where it stood."""
    task = step.records.task(letter.id)
    if task is None or task.state is not TaskState.HALTED:
        return Replay(letter.id, CONFLICT, error=f"task {letter.id} is not halted any more")
    if dry_run:
        return Replay(letter.id, OK, letter.id)
    put_pending(step, task, promise, step.now, failures=0)
    step.records.put_dead_letter(replace(letter, replays=letter.replays + 1))
    return Replay(letter.id, OK, letter.id)


def _again_under_new_id(
    step: Step, letter: DeadLetter, param: Value | None, *, dry_run: bool
) -> Replay:
    """Rejected work is created once more: a settled promise never changes."""
    number = letter.replays + 1
    while step.records.promise(f"{letter.id}~{number}") is not None:
        number += 1
    id = f"{letter.id}~{number}"
    if problem := id_problem(id):
        return Replay(letter.id, CONFLICT, error=problem)
    if dry_run:
        return Replay(letter.id, OK, id)
    original = step.records.promise(letter.id)
    timeout_at = NEVER_MS
    if original is not None and original.timeout_at != NEVER_MS:
        span = original.timeout_at - original.created_at
        timeout_at = min(step.now + span, MAX_INTEGER)
    tags = {name: text for name, text in letter.tags.items() if name not in tag.NOT_REPLAYED}
    tags[tag.REPLAY_OF] = letter.id
    put_new_promise(step, r.PromiseCreate(id, timeout_at, param or letter.param, tags))
    step.records.put_dead_letter(replace(letter, replays=number))
    return Replay(letter.id, OK, id)
