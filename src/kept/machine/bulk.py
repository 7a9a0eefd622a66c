"""Bulk operations on dead letters: by filter, durable, a part at a time (protocol B4).

A request stores what is to be done; the background does it, at most `MAX_BULK_LETTERS` a commit, and
each part moves the cursor in the commit that does its work. So a crash repeats nothing, and of two
servers that take the same part the second finds the cursor moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from kept.machine.background import BulkPart
from kept.machine.dead_letters import purge, replay, require_replays
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol.entries import Bulk, BulkAction, Entry, EntryKey, EntryKind
from kept.protocol.limits import BULK_KEPT_MS, MAX_INTEGER
from kept.protocol.responses import (
    BAD_REQUEST,
    CONFLICT,
    NOT_FOUND,
    OK,
    BulkRecord,
    BulkResult,
    PurgeResult,
    ReplayResult,
    Response,
)


def dead_replay(step: Step, request: r.DeadReplay) -> Response:
    """Each of the ids by itself: one that cannot be replayed says why and stops no other. By
    filter: in the background."""
    if request.filter is not None:
        bulk = Bulk(BulkAction.REPLAY, request.filter, step.now, request.param, request.dry_run)
        return _start(step, request, bulk, lambda record: ReplayResult([], record))
    require_replays(step, request.ids)
    return Response(
        OK,
        ReplayResult(
            [replay(step, id, request.param, dry_run=request.dry_run) for id in request.ids]
        ),
    )


def dead_purge(step: Step, request: r.DeadPurge) -> Response:
    """Forgets dead letters. Their promises and tasks stay as they are."""
    if request.filter is not None:
        bulk = Bulk(BulkAction.PURGE, request.filter, step.now, dry_run=request.dry_run)
        return _start(step, request, bulk, lambda record: PurgeResult([], record))
    purges = [purge(step, id, dry_run=request.dry_run) for id in request.ids]
    return Response(OK, PurgeResult(purges))


def dead_bulk(step: Step, request: r.DeadBulk) -> Response:
    """How far a bulk operation is."""
    entry = step.records.entry(bulk_key(request.id))
    if entry is None:
        return Response(NOT_FOUND, f"bulk operation {request.id} does not exist")
    return Response(OK, BulkResult(_record(entry)))


def bulk_key(id: str) -> EntryKey:
    """The key of a bulk operation."""
    return EntryKey(EntryKind.BULK, id)


def _start(
    step: Step,
    request: r.DeadReplay | r.DeadPurge,
    bulk: Bulk,
    result: Callable[[BulkRecord], ReplayResult | PurgeResult],
) -> Response:
    """Idempotent by its id; who gives none gets one of the request's."""
    id = request.bulk or step.request_id or _derived_id(bulk)
    entry = step.records.entry(bulk_key(id))
    if entry is None:
        entry = Entry(bulk_key(id), bulk, step.now)
        step.records.put_entry(entry)
    elif not _is_same(entry, bulk):
        return Response(CONFLICT, f"bulk operation {id} is another one; use another id")
    return Response(OK, result(_record(entry)))


def _derived_id(bulk: Bulk) -> str:
    return hashlib.sha256(msgspec.json.encode(bulk)).hexdigest()[:32]


def _is_same(entry: Entry, bulk: Bulk) -> bool:
    data = entry.data
    assert isinstance(data, Bulk)
    return (data.action, data.filter, data.param, data.dry_run) == (
        bulk.action,
        bulk.filter,
        bulk.param,
        bulk.dry_run,
    )


def _record(entry: Entry) -> BulkRecord:
    data = entry.data
    assert isinstance(data, Bulk)
    return BulkRecord(
        entry.key.name,
        data.action,
        data.filter,
        data.started_at,
        data.dry_run,
        data.done,
        data.failed,
        data.finished_at,
    )


def bulk_part(step: Step, part: BulkPart) -> None:
    """The next letters, if nobody else has done them. What was filed since it began is left alone."""
    entry = step.records.entry(part.key)
    if entry is None or not isinstance(entry.data, Bulk):
        return
    bulk = entry.data
    if bulk.finished_at is not None or bulk.cursor != part.after:
        return
    wanted = [id for id in part.ids if _is_wanted(step, bulk, id)]
    statuses = _act(step, bulk, wanted)
    failed = sum(status >= BAD_REQUEST for status in statuses)
    cursor, due_at, finished_at = part.cursor, step.now, None
    if cursor is None:
        cursor, finished_at = bulk.cursor, step.now
        due_at = min(step.now + BULK_KEPT_MS, MAX_INTEGER)
    after = replace(
        bulk,
        cursor=cursor,
        done=bulk.done + len(statuses) - failed,
        failed=bulk.failed + failed,
        finished_at=finished_at,
    )
    step.records.put_entry(Entry(entry.key, after, due_at))


def _act(step: Step, bulk: Bulk, ids: list[str]) -> list[int]:
    if bulk.action is BulkAction.PURGE:
        return [purge(step, id, dry_run=bulk.dry_run).status for id in ids]
    require_replays(step, ids)
    return [replay(step, id, bulk.param, dry_run=bulk.dry_run).status for id in ids]


def _is_wanted(step: Step, bulk: Bulk, id: str) -> bool:
    """Whether a letter, as it is now, is one that the operation was asked for."""
    letter = step.records.dead_letter(id)
    return (
        letter is not None
        and letter.died_at <= bulk.started_at
        and bulk.filter.wants(
            letter.id, letter.queue, letter.function, letter.reason, letter.died_at
        )
    )


def forget_finished(step: Step, entry: Entry) -> None:
    """A finished operation can be read for a while. One that is not goes on by parts."""
    assert isinstance(entry.data, Bulk)
    if entry.data.finished_at is not None:
        step.records.remove_entry(entry.key)
