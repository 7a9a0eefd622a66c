"""Revision guards (protocol B5): late events cannot overwrite newer state."""

from __future__ import annotations

from typing import Final

from kept.machine.step import Step
from kept.protocol import guard_requests as g
from kept.protocol.entries import Entry, EntryKey, EntryKind, Guard
from kept.protocol.limits import DEFAULT_GUARD_RETENTION_MS
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    OK,
    GuardAdvanceResult,
    GuardRecord,
    GuardResult,
    Nothing,
    Response,
)

_NOTHING: Final = Response(OK, Nothing())


def guard_key(key: str) -> EntryKey:
    """What the entry of a guard is known by."""
    return EntryKey(EntryKind.GUARD, key)


def guard_advance(step: Step, request: g.GuardAdvance) -> Response:
    guard = _read(step, request.key)
    if guard is not None and request.revision < guard.revision:
        text = f"{request.key[:64]!r} is at revision {guard.revision} already"
        return Response(CONFLICT, text, {"current": guard.revision})
    if guard is not None and request.revision == guard.revision:
        # Asked again because the answer was lost: not a repeated event.
        is_same = step.request_id is not None and guard.request == step.request_id
        return Response(OK, GuardAdvanceResult(guard.revision, repeated=not is_same))
    retention = request.retention or DEFAULT_GUARD_RETENTION_MS
    advanced = Guard(request.revision, step.now + retention, step.request_id)
    step.records.put_entry(Entry(guard_key(request.key), advanced, advanced.expires_at))
    return Response(OK, GuardAdvanceResult(request.revision))


def guard_get(step: Step, request: g.GuardGet) -> Response:
    guard = _read(step, request.key)
    if guard is None:
        return _unknown(request.key)
    return Response(OK, GuardResult(GuardRecord(request.key, guard.revision, guard.expires_at)))


def guard_delete(step: Step, request: g.GuardDelete) -> Response:
    if _read(step, request.key) is None:
        return _unknown(request.key)
    step.records.remove_entry(guard_key(request.key))
    return _NOTHING


def guard_record(entry: Entry, now: int) -> GuardRecord | None:
    """What is told of a guard at `now` (ms); None once it has expired."""
    assert isinstance(entry.data, Guard)
    guard = entry.data
    if guard.expires_at <= now:
        return None
    return GuardRecord(entry.key.name, guard.revision, guard.expires_at)


def _unknown(key: str) -> Response:
    return Response(NOT_FOUND, f"nothing is known of {key[:64]!r}")


def _read(step: Step, key: str) -> Guard | None:
    """The guard, where it has not expired."""
    entry = step.records.entry(guard_key(key))
    if entry is None:
        return None
    assert isinstance(entry.data, Guard)
    return entry.data if entry.data.expires_at > step.now else None
