"""Canceling work and what it started (protocol B3; docs/design/cancellation.md).

A request is stored with the promise and in an entry of the same name, and whoever works on it is
told. The entry brings the background here again: to spread the cancellation to the children, page
by page, and to stop what has not stopped by itself when the grace is over.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from kept.machine.effects import put_pending, read_promise, settle
from kept.machine.promises import no_promise
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.entries import Cancellation, CancelMode, Entry, EntryKey, EntryKind
from kept.protocol.limits import MAX_CANCELED_PER_COMMIT
from kept.protocol.records import EMPTY, Promise, PromiseState, TaskState, Value
from kept.protocol.responses import OK, CancelRecord, CancelResult, Response
from kept.protocol.storage import ChildPage

_START: Final = ""


def cancel_key(id: str) -> EntryKey:
    return EntryKey(EntryKind.CANCEL, id)


def promise_cancel(step: Step, request: r.PromiseCancel) -> Response:
    """Cancels a promise, or says how far that is. What is settled stays as it is."""
    promise = read_promise(step, request.id)
    if promise is None:
        return no_promise(request.id)
    if promise.pending:
        asked = Cancellation(request.mode, step.now, request.reason, request.recursive)
        _cancel(step, promise, asked)
        promise = read_promise(step, request.id)
        assert promise is not None
    entry = step.records.entry(cancel_key(request.id))
    return Response(OK, CancelResult(promise.record(), _progress_of(step, promise, entry)))


def _progress_of(step: Step, promise: Promise, entry: Entry | None) -> CancelRecord | None:
    if entry is None:
        return None
    data = _data(entry)
    return CancelRecord(
        data.mode,
        data.requested_at,
        data.descendants,
        data.after is not None or data.open > 0,
        data.reason,
        data.requested_at + step.config.cancel_grace_ms if promise.pending else None,
    )


# -- one promise -------------------------------------------------------------------------------------


def _cancel(step: Step, promise: Promise, asked: Cancellation) -> bool:
    """Cancels a pending promise; whether it was not asked for in the same way before."""
    known = _stored(step, promise)
    wanted = asked if known is None else _merged(known, asked)
    if wanted == known:
        return False
    if wanted.mode is CancelMode.FORCE or not _may_stop_itself(step, promise):
        promise = settle(
            step, promise, PromiseState.REJECTED_CANCELED, reason_value(wanted.reason), step.now
        )
    elif known is None:
        promise = _requested(step, promise)
    spreads = wanted.recursive and (
        known is None or not known.recursive or wanted.mode is not known.mode
    )
    if spreads:
        children = step.records.pending_children(ChildPage(promise.id, _START, 1))
        if children.ids or children.more is not None:
            wanted = replace(wanted, after=_START)
    _put(step, promise, known, wanted)
    return True


def _merged(known: Cancellation, asked: Cancellation) -> Cancellation:
    """The stronger of two: a forced one never becomes a request again."""
    return replace(
        known,
        mode=CancelMode.FORCE if asked.mode is CancelMode.FORCE else known.mode,
        recursive=known.recursive or asked.recursive,
        reason=known.reason or asked.reason,
    )


def _may_stop_itself(step: Step, promise: Promise) -> bool:
    """Whether there is code that began and that somebody will run."""
    task = step.records.task(promise.id)
    if task is None or task.state is TaskState.HALTED:
        return False
    return task.version > 0


def _requested(step: Step, promise: Promise) -> Promise:
    """The work is asked to stop: what waits for something is woken to hear it."""
    promise = replace(promise, cancel_requested_at=step.now)
    step.records.put_promise(promise)
    task = step.records.task(promise.id)
    if task is not None and task.state is TaskState.SUSPENDED:
        put_pending(step, task, promise, step.now)
    return promise


def _put(step: Step, promise: Promise, known: Cancellation | None, wanted: Cancellation) -> None:
    """Stores how far a promise's cancellation is, and tells its root when this one has spread."""
    spread_before = known is None or known.after is None
    change = (wanted.after is not None) - (not spread_before)
    if wanted.root is None:
        wanted = replace(wanted, open=wanted.open + change)
    elif change:
        _put_root(step, wanted.root, open=change)
    key = cancel_key(promise.id)
    due_at: int | None = None
    if wanted.after is not None:
        due_at = step.now
    elif promise.pending:
        due_at = wanted.requested_at + step.config.cancel_grace_ms
    elif wanted.open > 0:
        # Those that still spread it bring it to an end; this is in case they are gone.
        due_at = step.now + step.config.cancel_grace_ms
    if due_at is not None:
        step.records.put_entry(Entry(key, wanted, due_at))
    elif known is not None:
        step.records.remove_entry(key)


def _put_root(step: Step, root: str, *, open: int = 0, descendants: int = 0) -> None:
    """Counts at the promise from which a cancellation spreads."""
    entry = step.records.entry(cancel_key(root))
    if entry is None:
        return
    data = _data(entry)
    counted = replace(
        data, open=max(data.open + open, 0), descendants=data.descendants + descendants
    )
    promise = read_promise(step, root)
    if counted.open == 0 and (promise is None or not promise.pending):
        step.records.remove_entry(entry.key)
    else:
        step.records.put_entry(replace(entry, data=counted))


# -- in the background -------------------------------------------------------------------------------


def look_at_cancellation(step: Step, entry: Entry) -> None:
    """Spreads it further, or ends it."""
    promise = read_promise(step, entry.key.name)
    data = _data(entry)
    if promise is None:
        step.records.remove_entry(entry.key)
    elif promise.pending and step.now >= data.requested_at + step.config.cancel_grace_ms:
        # What did not stop by itself is stopped, and so is all that it started.
        _cancel(step, promise, replace(data, mode=CancelMode.FORCE))
    elif data.after is not None:
        _spread(step, promise, data, data.after)
    else:
        _put(step, promise, data, replace(data, open=0))


def _spread(step: Step, promise: Promise, data: Cancellation, after: str) -> None:
    """To a page of the children; what a commit has no room for stays due."""
    records = step.records
    if records.canceled >= MAX_CANCELED_PER_COMMIT:
        return
    page = records.pending_children(ChildPage(promise.id, after, MAX_CANCELED_PER_COMMIT))
    if records.canceled and records.canceled + len(page.ids) > MAX_CANCELED_PER_COMMIT:
        records.canceled = MAX_CANCELED_PER_COMMIT
        return
    children = [child for id in page.ids if (child := _reached(step, promise, data, id))]
    asked_before = {cancel_key(c.id) for c in children if c.cancel_requested_at is not None}
    records.require_cancelable([child.id for child in children], asked_before)
    root = data.root or promise.id
    asked = Cancellation(data.mode, step.now, data.reason, root=root)
    fresh = 0
    for child in children:
        if not child.project(step.now).pending:
            read_promise(step, child.id)
            continue
        fresh += child.cancel_requested_at is None
        _cancel(step, child, asked)
    # A page that is not the last one took a full walk.
    records.canceled += max(len(page.ids), 1) if page.more is None else MAX_CANCELED_PER_COMMIT
    _put_root(step, root, descendants=fresh)
    _put(step, promise, data, replace(_current(step, promise, data), after=page.more))


def _current(step: Step, promise: Promise, data: Cancellation) -> Cancellation:
    """As it is stored now: spreading counts at the root, which may be this one itself."""
    entry = step.records.entry(cancel_key(promise.id))
    return data if entry is None else _data(entry)


def _reached(step: Step, promise: Promise, data: Cancellation, id: str) -> Promise | None:
    """The child, where the cancellation of its parent reaches it."""
    child = step.records.promise(id)
    assert child is not None, id
    if child.origin != promise.origin or child.tags.get(tag.DETACHED) == "true":
        return None
    if data.mode is CancelMode.FORCE:
        return child
    if child.tags.get(tag.COMPENSATION) == "true":
        return None
    # A timer is no work: while the code runs it is the code's, which may be at its clean-up.
    return None if child.is_timer and promise.pending else child


# -- telling those who work on it --------------------------------------------------------------------


def told(step: Step, promise: Promise) -> int | None:
    """What whoever takes the work now is told: since when it is asked to stop (ms)."""
    if promise.cancel_requested_at is not None:
        _heard(step, promise)
    return promise.cancel_requested_at


def released(step: Step, id: str) -> None:
    """The cancellation reached the code."""
    promise = step.records.promise(id)
    if promise is not None and promise.cancel_requested_at is not None:
        _heard(step, promise)


def is_unheard(step: Step, promise: Promise) -> bool:
    """Whether the request came while somebody works who does not know of it yet."""
    data = _stored(step, promise)
    return data is not None and not data.heard


def _heard(step: Step, promise: Promise) -> None:
    entry = step.records.entry(cancel_key(promise.id))
    if entry is not None and not _data(entry).heard:
        step.records.put_entry(replace(entry, data=replace(_data(entry), heard=True)))


def with_reason(step: Step, promise: Promise, value: Value) -> Value:
    """The value of a promise that its code ends as canceled: why, if it says nothing itself."""
    data = _stored(step, promise)
    return value if data is None or value.normal() != EMPTY else reason_value(data.reason)


def reason_value(reason: str | None) -> Value:
    """A canceled promise's value."""
    return Value(headers={tag.CANCEL_REASON_HEADER: reason}) if reason else EMPTY


def _stored(step: Step, promise: Promise) -> Cancellation | None:
    """The cancellation that was asked for while the promise was pending."""
    if promise.cancel_requested_at is None:
        return None
    entry = step.records.entry(cancel_key(promise.id))
    assert entry is not None, f"{promise.id} is asked to stop and nobody will see to it"
    return _data(entry)


def _data(entry: Entry) -> Cancellation:
    assert isinstance(entry.data, Cancellation)
    return entry.data
