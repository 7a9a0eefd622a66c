"""Who runs what (protocol B9): announcements of workers, and jobs that nobody can run.

A worker's announcement is one entry. Besides, each name that jobs may have (`name` and `name@version`)
has an entry that says until when it is announced; a nack looks there and at nothing else.
"""

from __future__ import annotations

from msgspec.structs import replace

from kept.machine.step import Step
from kept.protocol import worker_requests as w
from kept.protocol.entries import Announcement, Entry, EntryKey, EntryKind, FunctionSeen
from kept.protocol.limits import FUNCTION_RETENTION_MS
from kept.protocol.records import Promise
from kept.protocol.responses import OK, Nothing, Response

UNREGISTERED = "unregistered"
_UNSEEN = FunctionSeen()


def worker_key(pid: str) -> EntryKey:
    """The key of a worker's announcement."""
    return EntryKey(EntryKind.WORKER, pid)


def function_key(reference: str) -> EntryKey:
    """The key of what is known of a function, by what the tag of a job names."""
    return EntryKey(EntryKind.FUNCTION, reference)


def references_of(announcement: Announcement | w.WorkerAnnounce) -> list[str]:
    """Everything by which jobs may name the functions announced."""
    named = [f"{each.name}@{each.version}" for each in announcement.functions]
    return list(dict.fromkeys([*named, *(each.name for each in announcement.functions)]))


def worker_announce(step: Step, request: w.WorkerAnnounce) -> Response:
    """Replaces what the worker announced before; with a short ttl and nothing, it takes leave."""
    queues, functions = tuple(request.queues), tuple(request.functions)
    announcement = Announcement(queues, functions, request.ttl, step.now + request.ttl)
    _store(step, request.pid, announcement)
    return Response(OK, Nothing())


def renew(step: Step, pid: str) -> None:
    """A heartbeat came. Half of the ttl has to pass before that is worth writing."""
    entry = step.records.entry(worker_key(pid))
    if entry is None:
        return
    known = entry.data
    assert isinstance(known, Announcement)
    if step.now < known.expires_at <= step.now + known.ttl // 2:
        _store(step, pid, replace(known, expires_at=step.now + known.ttl))


def _store(step: Step, pid: str, announcement: Announcement) -> None:
    records, until = step.records, announcement.expires_at
    records.put_entry(Entry(worker_key(pid), announcement, until))
    for reference in references_of(announcement):
        seen = _seen(step, reference)
        # Several workers announce it; not each of them has to write that.
        if seen.announced_until <= step.now + announcement.ttl // 2 or seen.missing_since:
            seen = FunctionSeen(max(until, seen.announced_until))
            records.put_entry(Entry(function_key(reference), seen, until + FUNCTION_RETENTION_MS))


def _seen(step: Step, reference: str) -> FunctionSeen:
    entry = step.records.entry(function_key(reference))
    if entry is None:
        return _UNSEEN
    assert isinstance(entry.data, FunctionSeen)
    return entry.data


def is_abandoned(step: Step, promise: Promise) -> bool:
    """Whether nobody has announced the function of a job for the whole grace. That begins with the
    first job that a worker could not run, and not before this one was there."""
    reference = promise.function
    if reference is None:
        return False
    seen = _seen(step, reference)
    if seen.announced_until > step.now:
        return False
    if seen.missing_since is None:
        seen = replace(seen, missing_since=step.now)
        forget_at = step.now + FUNCTION_RETENTION_MS + step.config.unregistered_grace_ms
        step.records.put_entry(Entry(function_key(reference), seen, forget_at))
    assert seen.missing_since is not None
    since = max(seen.missing_since, promise.created_at)
    return step.now - since >= step.config.unregistered_grace_ms
