"""Settled trees leave, a part at a time (protocol B6; docs/design/retention.md).

A look walks the promises of an origin from the youngest to the oldest, the root last, at most
MAX_LEAVING_PER_COMMIT in one commit. The first walk only asks whether anything keeps the tree; once
nothing does, a second one removes what it passes. A tree that fits into one page needs one look.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from kept.machine.background import LeaveTree
from kept.machine.cancellation import cancel_key
from kept.machine.effects import read_promise
from kept.machine.limits import settings_of
from kept.machine.mailboxes import mailbox_key
from kept.machine.step import Step
from kept.machine.trees import kept_key, queue_behind, retention_of, tree_key
from kept.protocol import tags as tag
from kept.protocol.attributes import attributes_key, index_key
from kept.protocol.entries import (
    Attributes,
    Dedupe,
    Entry,
    EntryKey,
    EntryKind,
    KeptId,
    Retention,
    Retiring,
)
from kept.protocol.keys import has_keys, keys_of
from kept.protocol.limits import HELD_LOOK_MS, MAX_INTEGER, MAX_LEAVING_PER_COMMIT
from kept.protocol.records import Promise, PromiseState
from kept.protocol.storage import EntryPrefix, Member, Members, Reads, TreePage


class Obstacle(NamedTuple):
    """Why a tree stays until it is looked at again at `until` (ms), and because of which promise,
    where time alone does not change that."""

    until: int
    held_by: str | None = None


def leave_tree(step: Step, due: LeaveTree) -> None:
    """Looks at the next part of a tree, or at many trees, and removes it where nothing keeps it."""
    records = step.records
    entry = records.entry(due.key)
    if entry is None or entry.due_at is None or entry.due_at > step.now:
        return
    if records.left >= MAX_LEAVING_PER_COMMIT:
        return
    if isinstance(entry.data, Retiring):
        _look_at_roots(step, entry, entry.data.roots)
    else:
        assert isinstance(entry.data, Retention)
        _look_at(step, due.key.name, entry.data)


def _look_at_roots(step: Step, entry: Entry, roots: tuple[str, ...]) -> None:
    """The trees of roots that settled at one time. One that has an entry of its own by now is left
    to that; those for which the commit has no room stay due."""
    records = step.records
    records.require(
        Reads(
            objects=set(roots),
            entries={tree_key(root) for root in roots},
            trees={TreePage(root, None, MAX_LEAVING_PER_COMMIT) for root in roots},
        )
    )
    for position, root in enumerate(roots):
        if records.entry(tree_key(root)) is None and not _look_at(step, root, Retention()):
            records.put_entry(Entry(entry.key, Retiring(roots[position:]), step.now))
            return
    records.remove_entry(entry.key)


def _look_at(step: Step, origin: str, data: Retention) -> bool:
    """Looks at the next part of a tree, of which `data` is known; False where this commit has no
    room for it."""
    records, key = step.records, tree_key(origin)
    root = _root(step, origin)
    retention = retention_of(step, root)
    if retention is None:
        records.remove_entry(key)
        return True
    page = Members([], more=False)
    obstacle = _still_held(step, data, retention)
    if obstacle is None:
        page = records.members(TreePage(origin, data.seen, MAX_LEAVING_PER_COMMIT))
        if records.left + len(page.members) > MAX_LEAVING_PER_COMMIT and records.left:
            records.left = MAX_LEAVING_PER_COMMIT
            return False
        obstacle = _obstacle(step, page.members, retention)
    records.left += max(len(page.members), 1)
    if obstacle is not None:
        until = min(obstacle.until, MAX_INTEGER)
        records.put_entry(Entry(key, Retention(held_by=obstacle.held_by), until))
    elif data.leaving or (data.seen is None and not page.more):
        _remove(step, page.members, root)
        if page.more:
            records.put_entry(Entry(key, Retention(leaving=True), step.now))
        else:
            records.remove_entry(key)
    elif page.more:
        records.put_entry(Entry(key, Retention(page.members[-1].id), step.now))
    else:
        records.put_entry(Entry(key, Retention(leaving=True), step.now))
    return True


def _root(step: Step, origin: str) -> Promise | None:
    """The origin's own promise, if it is of this tree."""
    promise = step.records.promise(origin)
    return promise if promise is not None and promise.origin == origin else None


# -- what keeps a tree -------------------------------------------------------------------------------


def _still_held(step: Step, data: Retention, retention: int) -> Obstacle | None:
    """What kept the tree at the last look is asked first: so a large tree is not walked each time."""
    if data.held_by is None:
        return None
    promise = read_promise(step, data.held_by)
    is_held = promise is not None and promise.pending
    if is_held or step.records.dead_letter(data.held_by) is not None:
        return Obstacle(step.now + max(retention, HELD_LOOK_MS), data.held_by)
    return None


def _obstacle(step: Step, members: list[Member], retention: int) -> Obstacle | None:
    """The first thing that keeps a tree."""
    records, now = step.records, step.now
    if any(records.wrote_promise(member.id) for member in members):
        # What is known of them is from before this batch.
        return Obstacle(now + 1)
    for member in members:
        if (kept := _kept_by(step, member)) is not None:
            later = now + max(retention, HELD_LOOK_MS)
            return Obstacle(later, kept) if kept else Obstacle(now)
    late = [member.id for member in members if member.state is PromiseState.PENDING]
    if late:
        for id in late:
            read_promise(step, id)
        return Obstacle(now)
    latest = max((member.settled_at or 0 for member in members), default=0)
    if latest + retention > now:
        return Obstacle(latest + retention)
    return _held_key(step, members, retention)


def _kept_by(step: Step, member: Member) -> str | None:
    """The promise because of which one stays: itself, where it is not settled, whoever looks, or
    something names it; or its parent, which may be of another tree and would ask for it again.
    Nothing ("") where the parent's deadline has passed and is stored only now."""
    is_pending = member.state is PromiseState.PENDING and member.timeout_at > step.now
    if is_pending or member.named:
        return member.id
    if not member.parent_pending:
        return None
    for name in (tag.PARENT, tag.BRANCH):
        parent = member.tags.get(name)
        promise = None if parent is None else read_promise(step, parent)
        if promise is not None and promise.pending and parent != member.id:
            return parent
    return ""


def _held_key(step: Step, members: list[Member], retention: int) -> Obstacle | None:
    """A dedupe key that one of them still has."""
    held = {
        keys_of(member.tags)[EntryKind.DEDUPE]: member.id
        for member in members
        if has_keys(member.tags) and EntryKind.DEDUPE in keys_of(member.tags)
    }
    step.records.require(Reads(entries=set(held)))
    for key, id in held.items():
        entry = step.records.entry(key)
        if entry is not None and isinstance(entry.data, Dedupe) and entry.data.promise == id:
            later = step.now + max(retention, HELD_LOOK_MS)
            return Obstacle(max(entry.data.until, step.now + 1) if entry.due_at else later, id)
    return None


# -- leaving -----------------------------------------------------------------------------------------


def _remove(step: Step, members: list[Member], root: Promise | None) -> None:
    """They go with all that hangs on them."""
    records = step.records
    said = [attributes_key(member.id) for member in members if member.version]
    boxes = dict.fromkeys(_boxes(members))
    keys = [_message_keys(owner, name) for owner, name in boxes]
    records.require(Reads(entries=set(said), entry_prefixes=set(keys)))
    for owner, name in boxes:
        records.remove_entry(mailbox_key(owner, name))
    for prefix in keys:
        for key in records.entry_keys(prefix):
            records.remove_entry(key)
    for key in said:
        _remove_attributes(step, key)
    for member in members:
        records.remove_entry(cancel_key(member.id))
        records.remove_promise(member.id)
    if root is not None and members and members[-1].id == root.id:
        _keep_id(step, root)


def _boxes(members: Iterable[Member]) -> Iterable[tuple[str, str]]:
    """The mailboxes whose messages are among them: they are their owner's, and of the same tree."""
    for member in members:
        name, owner = member.tags.get(tag.MAILBOX), member.tags.get(tag.PARENT)
        if name is not None and owner is not None:
            yield owner, name


def _message_keys(owner: str, name: str) -> EntryPrefix:
    """The remembered keys of a mailbox's messages; each message has one at most."""
    beginning = msgspec.json.encode([owner, name]).decode()[:-1] + ","
    return EntryPrefix(EntryKind.MESSAGE_KEY, beginning, 2 * MAX_LEAVING_PER_COMMIT)


def _remove_attributes(step: Step, key: EntryKey) -> None:
    entry = step.records.entry(key)
    if entry is None:
        return
    assert isinstance(entry.data, Attributes)
    for name, value in entry.data.attributes.items():
        step.records.remove_entry(index_key(name, value, key.name))
    step.records.remove_entry(key)


def _keep_id(step: Step, root: Promise) -> None:
    """Where its queue says so, the root's id and verdict stay."""
    queue = queue_behind(root.tags)
    if queue is None or not settings_of(step.records, queue).keep_ids:
        return
    assert root.settled_at is not None
    kept = KeptId(root.state, root.timeout_at, root.created_at, root.settled_at, step.now)
    step.records.put_entry(Entry(kept_key(root.id), kept))
