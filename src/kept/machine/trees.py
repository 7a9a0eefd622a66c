"""Trees: when the promises of one origin leave (protocol B6; docs/design/retention.md).

A tree whose root is pending needs nothing: settling the root puts it into an entry that brings the
background to it, one for all roots that a commit settles. Where there is no such root, its members'
births put an entry of its own. Both are put without looking at what is there.
"""

from __future__ import annotations

from kept.machine.limits import settings_of
from kept.machine.step import Step
from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.protocol.entries import Entry, EntryKey, EntryKind, KeptId, Retention, Retiring
from kept.protocol.limits import MAX_INTEGER, MAX_LEAVING_PER_COMMIT, NEVER_MS
from kept.protocol.records import EMPTY, Promise, Value
from kept.protocol.requests import PromiseCreate


def tree_key(origin: str) -> EntryKey:
    """The key of the entry that says when a tree leaves."""
    return EntryKey(EntryKind.RETENTION, origin)


def kept_key(id: str) -> EntryKey:
    """The key of what is kept of a promise that has left."""
    return EntryKey(EntryKind.KEPT_ID, id)


def queue_behind(tags: dict[str, str]) -> str | None:
    """The queue that a promise's target names."""
    target = tags.get(tag.TARGET)
    return None if target is None else queue_of(target)


def retention_of(step: Step, root: Promise | None) -> int | None:
    """How long (ms) a settled tree stays; None: for ever. What its root's queue says, else what
    holds in general."""
    queue = None if root is None else queue_behind(root.tags)
    if queue is not None:
        retention = settings_of(step.records, queue).retention
        if retention is not None:
            return retention
    return step.config.retention_ms


def note_settled(step: Step, promise: Promise) -> None:
    """A promise is settled: if it is a root, its tree is looked at after its retention."""
    if promise.origin != promise.id:
        return
    retention = retention_of(step, promise)
    if retention is not None:
        due_at = min(step.now + retention, MAX_INTEGER)
        entry = step.records.latest_retiring(due_at)
        roots: tuple[str, ...] = ()
        if entry is not None and isinstance(entry.data, Retiring):
            roots = entry.data.roots
        if entry is None or len(roots) >= MAX_LEAVING_PER_COMMIT:
            # In the order of time, so that they lie side by side; of nobody else, as a root settles
            # only once at an instant.
            key = EntryKey(EntryKind.RETIRING, f"{due_at:016} {promise.id}")
            step.records.put_retiring(Entry(key, Retiring((promise.id,)), due_at))
        else:
            step.records.put_retiring(Entry(entry.key, Retiring((*roots, promise.id)), due_at))


def note_born(step: Step, promise: Promise) -> None:
    """A promise is born. What nobody would settle in the store is looked at after its deadline, and
    so is what joins a tree of which nobody knows here whether anything in it is pending."""
    if promise.origin != promise.id:
        if not _is_alive(step, promise):
            root = step.records.known_promise(promise.origin)
            _look_after(step, promise.origin, retention_of(step, root), step.now)
    elif not promise.pending:
        note_settled(step, promise)
    elif promise.timeout_at != NEVER_MS and not promise.is_external:
        _look_after(step, promise.id, retention_of(step, promise), promise.timeout_at)


def _is_alive(step: Step, promise: Promise) -> bool:
    """Whether the root, or the parent in the same tree, is known to be pending."""
    root = step.records.known_promise(promise.origin)
    if root is not None and root.pending and root.origin == root.id:
        return True
    parent = promise.parent or promise.branch
    holder = None if parent is None else step.records.known_promise(parent)
    return holder is not None and holder.pending and holder.origin == promise.origin


def _look_after(step: Step, origin: str, retention: int | None, since: int) -> None:
    if retention is not None:
        due_at = min(since + retention, MAX_INTEGER)
        step.records.put_entry(Entry(tree_key(origin), Retention(), due_at))


def kept_verdict(step: Step, create: PromiseCreate) -> Promise | None:
    """What a create is answered whose promise has left, where its queue keeps ids: id and verdict,
    without tags and param; the value says only since when (ms) the rest is gone."""
    queue = queue_behind(create.tags)
    if queue is None or not settings_of(step.records, queue).keep_ids:
        return None
    entry = step.records.entry(kept_key(create.id))
    if entry is None:
        return None
    kept = entry.data
    assert isinstance(kept, KeptId)
    value = Value({tag.LEFT_HEADER: str(kept.left_at)})
    return Promise(
        create.id,
        kept.state,
        EMPTY,
        value,
        {},
        kept.timeout_at,
        kept.created_at,
        kept.settled_at,
    )
