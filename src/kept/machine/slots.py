"""Slots: a semaphore of leases (protocol B5; docs/design/locks.md).

Each request says how many slots there are, and is judged by what it says. A slot is free once its lease
has lapsed, whoever looks.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from kept.machine import line
from kept.machine.events import Conflicted, Granted
from kept.machine.step import Step
from kept.protocol import guard_requests as g
from kept.protocol.entries import Entry, EntryKey, EntryKind, SlotLease, Slots
from kept.protocol.limits import MAX_LINE
from kept.protocol.responses import (
    CONFLICT,
    OK,
    SHED,
    Detail,
    LeaseExtension,
    Nothing,
    Response,
    SlotHolder,
    SlotResult,
)

_NOTHING: Final = Response(OK, Nothing())
_NONE: Final = Slots()


def slots_key(key: str) -> EntryKey:
    """What the entry of slots is known by."""
    return EntryKey(EntryKind.SLOTS, key)


def slot_acquire(step: Step, request: g.SlotAcquire) -> Response:
    slots = _read(step, request.key)
    held = _lease_of(slots, request.holder)
    if held is not None:
        return _extend(step, request.key, slots, held, request.ttl)
    if line.may_take(slots.waiters, request.holder, len(slots.leases), request.limit):
        return _grant(step, request, slots)
    return _refuse(step, request, slots)


def _grant(step: Step, request: g.SlotAcquire, slots: Slots) -> Response:
    lease = SlotLease(request.holder, request.ttl, step.now + request.ttl)
    waiters = line.without(slots.waiters, request.holder)
    had_place = len(waiters) < len(slots.waiters)
    step.records.events.append(Granted(slots_key(request.key), request.holder, had_place))
    _put(step, request.key, Slots((*slots.leases, lease), waiters))
    return Response(OK, LeaseExtension(lease.expires_at))


def _refuse(step: Step, request: g.SlotAcquire, slots: Slots) -> Response:
    """409; one that waits has a place in line, any other has none any more."""
    waiters: line.Line | None = line.without(slots.waiters, request.holder)
    if request.wait:
        waiters = line.joined(slots.waiters, request.holder, request.limit, step.now)
    if waiters is None:
        return Response(SHED, f"{MAX_LINE} wait for {request.key[:64]!r} already")
    if line.place_of(slots.waiters, request.holder) == len(slots.waiters):
        waits = request.wait > 0
        step.records.events.append(Conflicted(slots_key(request.key), request.holder, waits))
    _put(step, request.key, replace(slots, waiters=waiters))
    detail: Detail = {}
    text = f"a slot of {request.key[:64]!r} is free, and kept for one that waits"
    if len(slots.leases) >= request.limit:
        expires_at = min(lease.expires_at for lease in slots.leases)
        detail = {"expiresAt": expires_at}
        text = f"all slots of {request.key[:64]!r} are held, the first until {expires_at}"
    if request.wait:
        detail["place"] = line.place_of(waiters, request.holder) + 1
    return Response(CONFLICT, text, detail)


def slot_heartbeat(step: Step, request: g.SlotHeartbeat) -> Response:
    slots = _read(step, request.key)
    held = _lease_of(slots, request.holder)
    if held is None:
        return Response(CONFLICT, f"no slot of {request.key[:64]!r} is held by that holder")
    return _extend(step, request.key, slots, held, held.ttl)


def _extend(step: Step, key: str, slots: Slots, held: SlotLease, ttl: int) -> Response:
    longer = SlotLease(held.holder, ttl, max(held.expires_at, step.now + ttl))
    leases = tuple(longer if lease is held else lease for lease in slots.leases)
    _put(step, key, replace(slots, leases=leases))
    return Response(OK, LeaseExtension(longer.expires_at))


def slot_release(step: Step, request: g.SlotRelease) -> Response:
    """Releasing what is not held is no error: it is free then as well."""
    slots = _read(step, request.key)
    leases = tuple(lease for lease in slots.leases if lease.holder != request.holder)
    if leases != slots.leases:
        _put(step, request.key, replace(slots, leases=leases))
    return _NOTHING


def slot_get(step: Step, request: g.SlotGet) -> Response:
    slots = _read(step, request.key)
    holders = [SlotHolder(lease.holder, lease.expires_at) for lease in slots.leases]
    return Response(OK, SlotResult(request.key, holders, len(slots.waiters)))


def look_at_slots(step: Step, entry: Entry) -> None:
    """A lease or a turn is over."""
    assert isinstance(entry.data, Slots)
    _put(step, entry.key.name, entry.data)


def leave_slots(step: Step, key: EntryKey, holder: str) -> None:
    """One that waited is gone."""
    slots = _read(step, key.name)
    left = replace(slots, waiters=line.without(slots.waiters, holder))
    if left != slots:
        _put(step, key.name, left)


def _lease_of(slots: Slots, holder: str) -> SlotLease | None:
    return next((lease for lease in slots.leases if lease.holder == holder), None)


def _read(step: Step, key: str) -> Slots:
    """The slots as they are now."""
    entry = step.records.entry(slots_key(key))
    if entry is None:
        return _NONE
    assert isinstance(entry.data, Slots)
    return _at(entry.data, step.now)


def _at(slots: Slots, now: int) -> Slots:
    leases = tuple(lease for lease in slots.leases if lease.expires_at > now)
    return Slots(leases, line.called(slots.waiters, len(leases), now))


def _put(step: Step, name: str, slots: Slots) -> None:
    """Stores the slots, with the turns of those who may have one; nothing where nobody is left."""
    slots = _at(slots, step.now)
    key = slots_key(name)
    before = step.records.entry(key)
    due_at = line.next_look(slots.waiters, (lease.expires_at for lease in slots.leases))
    if due_at is not None:
        if before is None or (before.data, before.due_at) != (slots, due_at):
            step.records.put_entry(Entry(key, slots, due_at))
    elif before is not None:
        step.records.remove_entry(key)
