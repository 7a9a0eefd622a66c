"""Locks with fences (protocol B5; docs/design/locks.md).

A lock is free once its lease has lapsed, whoever looks. Its fence is the greater of the last one plus one
and the clock in ms: so it rises also after the record was forgotten.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from kept.machine import line
from kept.machine.events import Conflicted, Granted
from kept.machine.step import Step
from kept.protocol import guard_requests as g
from kept.protocol.entries import Entry, EntryKey, EntryKind, Lock
from kept.protocol.limits import FREE_RETENTION_MS, MAX_LINE
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    OK,
    SHED,
    Detail,
    LeaseExtension,
    LockGrant,
    LockRecord,
    LockResult,
    Nothing,
    Response,
)

_NOTHING: Final = Response(OK, Nothing())
# Releases that are known when they are asked again.
MAX_RELEASED: Final = 8


def lock_key(resource: str) -> EntryKey:
    """What the entry of a lock is known by."""
    return EntryKey(EntryKind.LOCK, resource)


def lock_acquire(step: Step, request: g.LockAcquire) -> Response:
    lock = _read(step, request.resource)
    if lock is None:
        return _grant(step, request, Lock(fence=0))
    if lock.holder == request.holder:
        return _held_again(step, request, lock)
    if step.request_id is not None and lock.request == step.request_id:
        text = f"{request.resource[:64]!r} was granted to this request, and is given up since"
        return Response(CONFLICT, text)
    occupied = 0 if lock.holder is None else 1
    if line.may_take(lock.waiters, request.holder, occupied, 1):
        return _grant(step, request, lock)
    return _refuse(step, request, lock, occupied)


def _grant(step: Step, request: g.LockAcquire, lock: Lock) -> Response:
    granted = replace(
        lock,
        fence=max(lock.fence + 1, step.now),
        holder=request.holder,
        ttl=request.ttl,
        expires_at=step.now + request.ttl,
        request=step.request_id,
        waiters=line.without(lock.waiters, request.holder),
    )
    had_place = len(granted.waiters) < len(lock.waiters)
    step.records.events.append(Granted(lock_key(request.resource), request.holder, had_place))
    _put(step, request.resource, granted)
    return Response(OK, LockGrant(granted.fence, step.now + request.ttl))


def _held_again(step: Step, request: g.LockAcquire, lock: Lock) -> Response:
    """The holder asks for what it has: the same grant, which now lasts at least its ttl."""
    assert lock.expires_at is not None
    expires_at = max(lock.expires_at, step.now + request.ttl)
    request_id = step.request_id or lock.request
    again = replace(lock, ttl=request.ttl, expires_at=expires_at, request=request_id)
    _put(step, request.resource, again)
    return Response(OK, LockGrant(lock.fence, expires_at))


def _refuse(step: Step, request: g.LockAcquire, lock: Lock, occupied: int) -> Response:
    """409; one that waits has a place in line, any other has none any more."""
    waiters: line.Line | None = line.without(lock.waiters, request.holder)
    if request.wait:
        waiters = line.joined(lock.waiters, request.holder, 1, step.now)
    if waiters is None:
        return Response(SHED, f"{MAX_LINE} wait for {request.resource[:64]!r} already")
    if line.place_of(lock.waiters, request.holder) == len(lock.waiters):
        waits = request.wait > 0
        step.records.events.append(Conflicted(lock_key(request.resource), request.holder, waits))
    _put(step, request.resource, replace(lock, waiters=waiters))
    detail: Detail = {}
    text = f"{request.resource[:64]!r} is free, and kept for one that waits"
    if occupied:
        assert lock.holder is not None and lock.expires_at is not None
        detail = {"holder": lock.holder, "expiresAt": lock.expires_at}
        text = f"{request.resource[:64]!r} is held until {lock.expires_at}"
    if request.wait:
        detail["place"] = line.place_of(waiters, request.holder) + 1
    return Response(CONFLICT, text, detail)


def lock_heartbeat(step: Step, request: g.LockHeartbeat) -> Response:
    lock = _read(step, request.resource)
    if lock is None or not _is_holder(lock, request):
        return _not_held(request.resource, lock)
    assert lock.ttl is not None and lock.expires_at is not None
    expires_at = max(lock.expires_at, step.now + lock.ttl)
    _put(step, request.resource, replace(lock, expires_at=expires_at))
    return Response(OK, LeaseExtension(expires_at))


def lock_release(step: Step, request: g.LockRelease) -> Response:
    lock = _read(step, request.resource)
    if lock is None:
        return _not_held(request.resource, lock)
    if _is_holder(lock, request):
        released = lock.released
        if step.request_id is not None:
            released = (*released, step.request_id)[-MAX_RELEASED:]
        _put(step, request.resource, replace(_free(lock), released=released))
        return _NOTHING
    if step.request_id in lock.released:
        # Asked again, because the answer was lost.
        return _NOTHING
    return _not_held(request.resource, lock)


def _is_holder(lock: Lock, request: g.LockHeartbeat | g.LockRelease) -> bool:
    return lock.holder == request.holder and lock.fence == request.fence


def _not_held(resource: str, lock: Lock | None) -> Response:
    detail: Detail = {}
    if lock is not None:
        detail["fence"] = lock.fence
        if lock.holder is not None and lock.expires_at is not None:
            detail |= {"holder": lock.holder, "expiresAt": lock.expires_at}
    return Response(CONFLICT, f"{resource[:64]!r} is not held by that holder and fence", detail)


def lock_get(step: Step, request: g.LockGet) -> Response:
    entry = step.records.entry(lock_key(request.resource))
    if entry is None:
        return Response(NOT_FOUND, f"there is no lock {request.resource[:64]!r}")
    return Response(OK, LockResult(lock_record(entry, step.now)))


def lock_record(entry: Entry, now: int) -> LockRecord:
    """What is told of a lock at `now` (ms)."""
    assert isinstance(entry.data, Lock)
    lock = _at(entry.data, now)
    return LockRecord(entry.key.name, lock.fence, lock.holder, lock.expires_at, len(lock.waiters))


def look_at_lock(step: Step, entry: Entry) -> None:
    """A lease or a turn is over, or the lock has been free for long."""
    assert isinstance(entry.data, Lock)
    lock = _at(entry.data, step.now)
    # A later grant takes the clock as its fence, which must not be below this one.
    is_idle = lock.holder is None and not lock.waiters and lock.fence < step.now
    if is_idle and entry.data == lock:
        step.records.remove_entry(entry.key)
    else:
        _put(step, entry.key.name, lock)


def leave_lock(step: Step, key: EntryKey, holder: str) -> None:
    """One that waited is gone."""
    entry = step.records.entry(key)
    if entry is not None:
        assert isinstance(entry.data, Lock)
        left = replace(entry.data, waiters=line.without(entry.data.waiters, holder))
        if left != entry.data:
            _put(step, key.name, left)


def _read(step: Step, resource: str) -> Lock | None:
    """The lock as it is now."""
    entry = step.records.entry(lock_key(resource))
    if entry is None:
        return None
    assert isinstance(entry.data, Lock)
    return _at(entry.data, step.now)


def _at(lock: Lock, now: int) -> Lock:
    if lock.expires_at is not None and lock.expires_at <= now:
        lock = _free(lock)
    waiters = line.called(lock.waiters, 0 if lock.holder is None else 1, now)
    return lock if waiters == lock.waiters else replace(lock, waiters=waiters)


def _free(lock: Lock) -> Lock:
    return replace(lock, holder=None, ttl=None, expires_at=None)


def _put(step: Step, resource: str, lock: Lock) -> None:
    """Stores the lock, with the turn of whoever may have it, and when to look at it again."""
    lock = _at(lock, step.now)
    due_at = line.next_look(lock.waiters, (lock.expires_at,))
    if due_at is None:
        due_at = max(step.now + FREE_RETENTION_MS, lock.fence + 1)
    key = lock_key(resource)
    before = step.records.entry(key)
    if before is None or (before.data, before.due_at) != (lock, due_at):
        step.records.put_entry(Entry(key, lock, due_at))
