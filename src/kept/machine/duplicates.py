"""Creates that are about the same thing: dedupe, debounce, singleton (protocol B4).

`consider` looks at the holders of the keys that a create names and says what it means: the answer
that stands for it, or what to do besides creating it. An id that exists is answered before any key
is looked at. The order is dedupe, debounce, singleton: the first that answers ends it.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from kept.machine.effects import put_new_promise, put_pending, read_promise, settle
from kept.machine.events import KeyHit
from kept.machine.step import Step
from kept.protocol import keys as k
from kept.protocol import tags as tag
from kept.protocol.entries import (
    Debounce,
    Dedupe,
    Entry,
    EntryKey,
    EntryKind,
    KeyHolder,
    Singleton,
)
from kept.protocol.limits import MAX_INTEGER
from kept.protocol.records import EMPTY, Delivery, Promise, PromiseState, Task, TaskState
from kept.protocol.requests import PromiseCreate
from kept.protocol.responses import CONFLICT, Response


class Admission(NamedTuple):
    """What to do besides creating: whose place the new promise takes. For its debounce key, when the
    first create came, and until when (ms) its start may be put off at the latest."""

    replaced: tuple[Promise, ...] = ()
    first: int | None = None
    latest: int | None = None

    def makes_room(self, step: Step, queue: str) -> bool:
        """Whether one that waits in a queue leaves it."""
        tasks = [step.records.task(promise.id) for promise in self.replaced]
        return any(t and t.queue == queue and t.state is TaskState.PENDING for t in tasks)


FREE: Final = Admission()


def consider(step: Step, create: PromiseCreate) -> Promise | Response | Admission:
    """What a create under an id that does not exist yet comes to: the promise that stands for it,
    a refusal, or its admission. Only a debounce that postpones has done something then."""
    if not k.has_keys(create.tags):
        return FREE
    keys = k.keys_of(create.tags)
    admission: Admission = FREE
    if EntryKind.DEDUPE in keys:
        found = _dedupe(step, create, keys[EntryKind.DEDUPE])
        if found is not None:
            return _noted(step, EntryKind.DEDUPE, found)
    if EntryKind.DEBOUNCE in keys:
        debounced = _debounce(step, create, keys[EntryKind.DEBOUNCE])
        if isinstance(debounced, Promise):
            return _noted(step, EntryKind.DEBOUNCE, debounced)
        admission = debounced
    if EntryKind.SINGLETON in keys:
        single = _singleton(step, create, keys[EntryKind.SINGLETON], admission)
        if not isinstance(single, Admission):
            return _noted(step, EntryKind.SINGLETON, single)
        admission = single
    return admission


def _noted(step: Step, kind: EntryKind, found: Promise | Response) -> Promise | Response:
    step.records.events.append(KeyHit(kind))
    return found


def create(step: Step, request: PromiseCreate, admission: Admission) -> Promise:
    """Creates what was admitted."""
    make_way(step, admission)
    promise = put_new_promise(step, request, admission.latest)
    take_keys(step, promise, admission)
    return promise


def make_way(step: Step, admission: Admission) -> None:
    """Whose place is taken is over at once; a worker that runs it learns so with its heartbeat."""
    for promise in admission.replaced:
        settle(step, promise, PromiseState.REJECTED_CANCELED, EMPTY, step.now)


def take_keys(step: Step, promise: Promise, admission: Admission) -> None:
    """A promise that was just born holds the keys that it names."""
    for kind, key in k.keys_of(promise.tags).items():
        if kind is EntryKind.DEDUPE:
            window = int(promise.tags.get(tag.DEDUPE_WINDOW, 0))
            until = min(step.now + window, MAX_INTEGER)
            if promise.pending or until > step.now:
                held = Dedupe(promise.id, fingerprint_of(promise), until)
                step.records.put_entry(Entry(key, held, until if window else None))
        elif promise.pending and kind is EntryKind.DEBOUNCE:
            first = step.now if admission.first is None else admission.first
            step.records.put_entry(Entry(key, Debounce(promise.id, first, admission.latest)))
        elif promise.pending:
            step.records.put_entry(Entry(key, Singleton(promise.id)))


def fingerprint_of(create: PromiseCreate | Promise) -> str:
    """What two creates under one dedupe key must have in common: the tag, else the very param."""
    given = create.tags.get(tag.FINGERPRINT)
    if given is not None:
        return given
    param = create.param.normal()
    headers = sorted((param.headers or {}).items())
    return hashlib.sha256(msgspec.json.encode([headers, param.data])).hexdigest()


def _dedupe(step: Step, create: PromiseCreate, key: EntryKey) -> Promise | Response | None:
    entry = step.records.entry(key)
    if entry is None:
        return None
    assert isinstance(entry.data, Dedupe)
    holder = read_promise(step, entry.data.promise)
    if holder is None or (not holder.pending and entry.data.until <= step.now):
        return None
    ignores = create.tags.get(tag.DEDUPE_MISMATCH) == k.IGNORE
    if ignores or entry.data.fingerprint == fingerprint_of(create):
        return holder
    return Response(
        CONFLICT,
        f"dedupe key {create.tags[tag.DEDUPE]} is held by promise {holder.id}, which was created "
        f"with another fingerprint; use another key, or {tag.DEDUPE_MISMATCH} = {k.IGNORE}",
    )


def _holder(step: Step, key: EntryKey) -> tuple[Promise, KeyHolder] | None:
    """The unsettled promise that holds a key."""
    entry = step.records.entry(key)
    if entry is None:
        return None
    assert isinstance(entry.data, KeyHolder)
    promise = read_promise(step, entry.data.promise)
    return (promise, entry.data) if promise is not None and promise.pending else None


def _debounce(step: Step, create: PromiseCreate, key: EntryKey) -> Promise | Admission:
    """Puts off, or gives up, the holder's start, as long as it has not begun."""
    longest = create.tags.get(tag.DEBOUNCE_MAX)
    held = _holder(step, key)
    task = step.records.task(held[0].id) if held is not None else None
    if held is None or task is None or task.state is not TaskState.PENDING or task.version > 0:
        return Admission((), step.now, _latest(step.now, longest, None))
    holder, data = held
    assert isinstance(data, Debounce)
    latest = _latest(data.first, longest, data.latest)
    if create.tags.get(tag.DEBOUNCE_MODE) == k.REPLACE:
        return Admission((holder,), data.first, latest)
    _postpone(step, create, task, holder, latest)
    if latest != data.latest:
        step.records.put_entry(Entry(key, replace(data, latest=latest)))
    return holder


def _latest(first: int, longest: str | None, before: int | None) -> int | None:
    """Counted from the first create; what was promised before stays promised."""
    if longest is None:
        return before
    latest = min(first + int(longest), MAX_INTEGER)
    return latest if before is None else min(latest, before)


def _postpone(
    step: Step, create: PromiseCreate, task: Task, holder: Promise, latest: int | None
) -> None:
    """Later, never sooner; not beyond the latest instant, and not beyond the holder's deadline."""
    bounds = [int(create.tags.get(tag.DELAY, 0)), holder.timeout_at - 1]
    due_at = min(bounds if latest is None else [*bounds, latest])
    assert task.retry_at is not None and task.delivery is Delivery.PULL, task
    if due_at > max(task.retry_at, step.now):
        put_pending(step, task, holder, due_at)


def _singleton(
    step: Step, create: PromiseCreate, key: EntryKey, admission: Admission
) -> Promise | Response | Admission:
    held = _holder(step, key)
    if held is None or held[0] in admission.replaced:
        return admission
    holder = held[0]
    match create.tags[tag.SINGLETON]:
        case k.RETURN:
            return holder
        case k.REPLACE:
            return admission._replace(replaced=(*admission.replaced, holder))
    return Response(
        CONFLICT, f"promise {holder.id} is under way, and {tag.SINGLETON} = {k.SKIP} allows one"
    )
