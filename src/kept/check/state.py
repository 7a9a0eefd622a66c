"""Everything of one tenant as the properties see it, and what one step did to it.

Theory of operation: there is one `State`, changed in place. `State.apply` returns a `Delta` with the
former contents of whatever it touched: that is all it takes to look at the state before the step
(`Past`), to list what changed, and to take the step back (`State.undo`). So a step costs what it
touches, however large the state is.

Edges are kept with the number of times they stand, so that a store that lists one twice is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar

import msgspec

from kept.protocol.entries import Entry, EntryKey
from kept.protocol.records import (
    DeadLetter,
    MessageKey,
    MessageKind,
    OutboxEntry,
    Promise,
    ScheduleRecord,
    Task,
)
from kept.protocol.storage import Changes, Dump, Edge

# Ends of edges, each with how often it stands: once, unless something is wrong.
Ends: TypeAlias = dict[str, int]
NO_ENDS: Mapping[str, int] = {}

KeyT = TypeVar("KeyT")
RecordT = TypeVar("RecordT")


class Edges:
    """A relation between ids: `at` by its first end, `back` by its second."""

    __slots__ = ("at", "back")

    def __init__(self, edges: Iterable[tuple[str, str]] = ()) -> None:
        self.at: dict[str, Ends] = {}
        self.back: dict[str, Ends] = {}
        for of, to in edges:
            self.add(of, to)

    def __contains__(self, edge: tuple[str, str]) -> bool:
        return edge[1] in self.at.get(edge[0], NO_ENDS)

    def __iter__(self) -> Iterator[Edge]:
        return (Edge(of, to) for of, ends in self.at.items() for to in ends)

    def add(self, of: str, to: str) -> None:
        ends = self.at.setdefault(of, {})
        ends[to] = ends.get(to, 0) + 1
        self.back.setdefault(to, {})[of] = 1

    def remove(self, of: str, to: str) -> None:
        """Takes an edge away, however often it stands."""
        _drop(self.at, of, to)
        _drop(self.back, to, of)

    def count(self, of: str) -> int:
        return len(self.at.get(of, NO_ENDS))


def _drop(index: dict[str, Ends], first: str, second: str) -> None:
    ends = index[first]
    del ends[second]
    if not ends:
        del index[first]


class EdgeDelta(msgspec.Struct):
    """The edges that a step added and removed."""

    added: list[Edge] = []
    removed: list[Edge] = []

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


class Delta(msgspec.Struct):
    """What a step did: the former contents of each key that it touched (None: there was none)."""

    promises: dict[str, Promise | None] = {}
    tasks: dict[str, Task | None] = {}
    schedules: dict[str, ScheduleRecord | None] = {}
    outbox: dict[MessageKey, OutboxEntry | None] = {}
    dead_letters: dict[str, DeadLetter | None] = {}
    entries: dict[EntryKey, Entry | None] = {}
    releases: dict[Edge, int | None] = {}
    callbacks: EdgeDelta = msgspec.field(default_factory=EdgeDelta)
    listeners: EdgeDelta = msgspec.field(default_factory=EdgeDelta)
    resumes: EdgeDelta = msgspec.field(default_factory=EdgeDelta)
    # Ids that the step itself says are new.
    born_promises: set[str] = set()
    born_tasks: set[str] = set()

    @staticmethod
    def between(before: State, after: State) -> Delta:
        """The delta that leads from one whole state to another."""
        return Delta(
            promises=_changed(before.promises, after.promises),
            tasks=_changed(before.tasks, after.tasks),
            schedules=_changed(before.schedules, after.schedules),
            outbox=_changed(before.outbox, after.outbox),
            dead_letters=_changed(before.dead_letters, after.dead_letters),
            entries=_changed(before.entries, after.entries),
            releases=_changed(before.releases, after.releases),
            callbacks=_changed_edges(before.callbacks, after.callbacks),
            listeners=_changed_edges(before.listeners, after.listeners),
            resumes=_changed_edges(before.resumes, after.resumes),
            born_promises=after.promises.keys() - before.promises.keys(),
            born_tasks=after.tasks.keys() - before.tasks.keys(),
        )


def _changed(
    before: Mapping[KeyT, RecordT], after: Mapping[KeyT, RecordT]
) -> dict[KeyT, RecordT | None]:
    keys = list(before) + [key for key in after if key not in before]
    return {key: before.get(key) for key in keys if before.get(key) != after.get(key)}


def _changed_edges(before: Edges, after: Edges) -> EdgeDelta:
    return EdgeDelta(
        added=[edge for edge in after if edge not in before],
        removed=[edge for edge in before if edge not in after],
    )


class State:
    """All records of a tenant. Iteration is in order of arrival, which a run determines."""

    def __init__(self) -> None:
        self.promises: dict[str, Promise] = {}
        self.tasks: dict[str, Task] = {}
        self.schedules: dict[str, ScheduleRecord] = {}
        self.outbox: dict[MessageKey, OutboxEntry] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self.entries: dict[EntryKey, Entry] = {}
        self.releases: dict[Edge, int] = {}
        # (awaited promise, awaiting task)
        self.callbacks = Edges()
        # (promise, address)
        self.listeners = Edges()
        # (task, awaited promise)
        self.resumes = Edges()
        # (promise, address) of the unblock messages in the outbox
        self.unblocks = Edges()

    @staticmethod
    def from_dump(dump: Dump) -> State:
        """The state that a store's dump shows, ordered by keys."""
        state = State()
        state.promises = dict(sorted(dump.promises.items()))
        state.tasks = dict(sorted(dump.tasks.items()))
        state.schedules = dict(sorted(dump.schedules.items()))
        state.outbox = dict(sorted(dump.outbox.items()))
        state.dead_letters = dict(sorted(dump.dead_letters.items()))
        state.entries = dict(sorted(dump.entries.items()))
        state.releases = dict(sorted(dump.releases.items()))
        state.callbacks = Edges(sorted(dump.callbacks))
        state.listeners = Edges(sorted(dump.listeners))
        state.resumes = Edges(sorted(dump.resumes))
        state.unblocks = Edges(_unblocks(state.outbox))
        return state

    def apply(self, changes: Changes) -> Delta:
        """Takes a step's changes in; the delta says what they did."""
        delta = self.clear() if changes.reset else Delta()
        delta.born_promises = changes.born_promises
        delta.born_tasks = changes.born_tasks
        if changes.removed:
            self._remove(changes.removed, delta)
        _write(self.promises, changes.promises, delta.promises)
        _write(self.tasks, changes.tasks, delta.tasks)
        _write(self.schedules, changes.schedules, delta.schedules)
        _write(self.dead_letters, changes.dead_letters, delta.dead_letters)
        _write(self.entries, changes.entries, delta.entries)
        first = {e: number for e, number in changes.releases.items() if e not in self.releases}
        _write(self.releases, first, delta.releases)
        _write(self.outbox, changes.outbox, delta.outbox)
        if changes.outbox:
            self._index(changes.outbox)
        _write_edges(self.callbacks, changes.callbacks, delta.callbacks)
        _write_edges(self.listeners, changes.listeners, delta.listeners)
        if changes.resumes_cleared:
            self._clear_resumes(changes.resumes_cleared, delta.resumes)
        _write_edges(self.resumes, changes.resumes, delta.resumes)
        return delta

    def _remove(self, ids: Iterable[str], delta: Delta) -> None:
        """Takes promises out with their tasks and all that begins at either."""
        gone = dict.fromkeys(sorted(ids))
        _write(self.promises, gone, delta.promises)
        _write(self.tasks, {id: None for id in gone if id in self.tasks}, delta.tasks)
        releases = {edge: None for edge in self.releases if edge.of in gone}
        _write(self.releases, releases, delta.releases)
        for edges, edge_delta in (
            (self.callbacks, delta.callbacks),
            (self.listeners, delta.listeners),
            (self.resumes, delta.resumes),
        ):
            begin = {Edge(id, to): False for id in gone for to in edges.at.get(id, NO_ENDS)}
            _write_edges(edges, begin, edge_delta)

    def clear(self) -> Delta:
        """Takes everything out."""
        delta = Delta.between(self, State())
        fresh = State()
        for name in vars(self):
            setattr(self, name, getattr(fresh, name))
        return delta

    def undo(self, delta: Delta) -> None:
        """Takes the last applied step back."""
        _restore(self.promises, delta.promises)
        _restore(self.tasks, delta.tasks)
        _restore(self.schedules, delta.schedules)
        _restore(self.dead_letters, delta.dead_letters)
        _restore(self.entries, delta.entries)
        _restore(self.releases, delta.releases)
        _restore(self.outbox, delta.outbox)
        self._index(delta.outbox)
        for edges, edge_delta in (
            (self.callbacks, delta.callbacks),
            (self.listeners, delta.listeners),
            (self.resumes, delta.resumes),
        ):
            for of, to in edge_delta.added:
                edges.remove(of, to)
            for of, to in edge_delta.removed:
                edges.add(of, to)

    def dump(self) -> Dump:
        """The state in the form in which stores show theirs."""
        return Dump(
            promises=dict(self.promises),
            tasks=dict(self.tasks),
            callbacks=set(self.callbacks),
            listeners=set(self.listeners),
            resumes=set(self.resumes),
            releases=dict(self.releases),
            schedules=dict(self.schedules),
            outbox=dict(self.outbox),
            dead_letters=dict(self.dead_letters),
            entries=dict(self.entries),
        )

    def _index(self, touched: Iterable[MessageKey]) -> None:
        for key in touched:
            if key.kind is not MessageKind.UNBLOCK:
                continue
            edge, stands = (key.id, key.address), key in self.outbox
            if stands and edge not in self.unblocks:
                self.unblocks.add(*edge)
            elif not stands and edge in self.unblocks:
                self.unblocks.remove(*edge)

    def _clear_resumes(self, tasks: Iterable[str], delta: EdgeDelta) -> None:
        for task_id in sorted(tasks):
            for awaited in list(self.resumes.at.get(task_id, NO_ENDS)):
                self.resumes.remove(task_id, awaited)
                delta.removed.append(Edge(task_id, awaited))


def _unblocks(outbox: Iterable[MessageKey]) -> Iterator[tuple[str, str]]:
    return ((key.id, key.address) for key in outbox if key.kind is MessageKind.UNBLOCK)


def _write(
    records: dict[KeyT, RecordT],
    changes: Mapping[KeyT, RecordT | None] | Mapping[KeyT, RecordT],
    former: dict[KeyT, RecordT | None],
) -> None:
    for key, record in changes.items():
        former.setdefault(key, records.get(key))
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record


def _restore(records: dict[KeyT, RecordT], former: Mapping[KeyT, RecordT | None]) -> None:
    for key, record in former.items():
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record


def _write_edges(edges: Edges, changes: Mapping[Edge, bool], delta: EdgeDelta) -> None:
    for edge, present in changes.items():
        stands = edge in edges
        if present and not stands:
            edges.add(edge.of, edge.to)
            # An edge that was cleared and stands again has not changed.
            if edge in delta.removed:
                delta.removed.remove(edge)
            else:
                delta.added.append(edge)
        elif stands and not present:
            edges.remove(edge.of, edge.to)
            delta.removed.append(edge)
