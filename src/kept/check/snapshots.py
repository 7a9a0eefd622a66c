"""States of the sequential model as immutable snapshots that share what did not change.

The model changes its records in place. Here it gets a state whose records are copied when they are
first looked up; what differs afterwards goes into a new snapshot, the rest is shared. What no answer
can show is left out, so that states which differ only in it are one: listeners, messages, and the
instant at which a pending task is due, unless it lies ahead and the task waits in a queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from kept.check.model.cancellation import Cancel
from kept.check.model.state import NEVER, State

JsonObject: TypeAlias = dict[str, Any]
Table: TypeAlias = dict[str, JsonObject]
# A request's id and kind, and as much of its answer as the records do not tell.
Remembered: TypeAlias = tuple[str, str, str]

TABLES: Final = ("promises", "tasks", "schedules", "letters", "keys")
_NO_SET: Final[set[str]] = set()


class Records(dict[str, JsonObject]):
    """A table of a snapshot. Nobody changes it. Beside the records it has what is asked at every
    step, so that nobody looks at all of them: `instants`, when something becomes possible by itself
    and whether that is a step of the background, of the records of which that is so; and `awaited`,
    the promises that somebody waits for."""

    __slots__ = ("awaited", "instants")

    def __init__(self, before: Records | None = None) -> None:
        super().__init__(before or ())
        self.instants: dict[str, tuple[tuple[int, bool], ...]] = (
            before.instants.copy() if before else {}
        )
        self.awaited: dict[str, set[str]] = before.awaited.copy() if before else {}

    def changed(self, changes: Table) -> Records:
        """With other records under these ids."""
        later = Records(self)
        later.update(changes)
        for id, record in changes.items():
            later._forget(id)
            if instants := _instants_of(record):
                later.instants[id] = instants
            if awaiters := record.get("callbacks"):
                later.awaited[id] = awaiters
        return later

    def without(self, ids: Iterable[str]) -> Records:
        """Without the records of these ids."""
        later = Records(self)
        for id in ids:
            later.pop(id, None)
            later._forget(id)
        return later

    def _forget(self, id: str) -> None:
        self.instants.pop(id, None)
        self.awaited.pop(id, None)


class Snapshot:
    """The records after some step. Nobody changes it, or what it holds. Snapshots are equal where
    their records are, at whatever time.

    `time` is the instant (ms) of the step. `next_instant` is no later than the first instant after
    `time` at which a deadline passes or a step becomes possible, `next_step` no later than the first
    instant, passed or not, at which the background may act. `requests` holds for each task its last
    repeatable request (protocol B1) that was asked more than once: id, kind and answer. `spreads`
    says that some cancellation may go on to children.
    """

    __slots__ = (
        *("keys", "letters", "promises", "requests", "schedules", "tasks", "time"),
        *("next_instant", "next_step", "spreads", "_hash", "_before", "_changed"),
    )

    def __init__(self) -> None:
        self.promises = Records()
        self.tasks = Records()
        self.schedules = Records()
        self.letters = Records()
        self.keys = Records()
        self.requests: dict[str, Remembered] = {}
        self.time = 0
        self.next_instant = NEVER
        self.next_step = NEVER
        self.spreads = False
        self._hash = 0
        # The snapshot that this one was made of, and the ids of the records that differ from it.
        self._before: Snapshot | None = None
        self._changed: set[str] = set()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot) or self._hash != other._hash:
            return False
        return (
            (self.promises is other.promises or self.promises == other.promises)
            and (self.tasks is other.tasks or self.tasks == other.tasks)
            and (self.schedules is other.schedules or self.schedules == other.schedules)
            and (self.letters is other.letters or self.letters == other.letters)
            and (self.keys is other.keys or self.keys == other.keys)
            and (self.requests is other.requests or self.requests == other.requests)
        )

    def at(self, time: int) -> Snapshot:
        """The same records at a later time."""
        if time <= self.time:
            return self
        later = self._copy()
        later._seal(time)
        return later

    def remembering(self, task: str, request: Remembered | None) -> Snapshot:
        """The same records, with the last repeatable request of a task, if it is to be known."""
        before = self.requests.get(task)
        if before == request:
            return self
        later = self._copy()
        later.requests = {id: known for id, known in self.requests.items() if id != task}
        if request is not None:
            later.requests[task] = request
        later._hash ^= hash((task, before)) ^ hash((task, request))
        later._seal(self.time)
        return later

    def changed(self, changes: Changes, time: int) -> Snapshot:
        """The snapshot after a step at `time`; this one where nothing differs, not even the time."""
        if not any(changes):
            return self.at(time)
        later = self._copy()
        for name in TABLES:
            if table := getattr(changes, name):
                later._replace(name, table)
        if changes.deleted_schedules:
            later.schedules = later.schedules.without(changes.deleted_schedules)
            for id in changes.deleted_schedules & self.schedules.keys():
                later._hash ^= _hash_of(self.schedules[id])
        later._changed = {id for ids in changes for id in ids}
        later._seal(max(time, self.time))
        return later

    def _replace(self, name: str, table: Table) -> None:
        before: Records = getattr(self, name)
        later = before.changed(table)
        setattr(self, name, later)
        for id, record in table.items():
            if id in before:
                self._hash ^= _hash_of(before[id])
            self._hash ^= _hash_of(record)
            for at, is_step in later.instants.get(id, ()):
                self.next_instant = min(self.next_instant, at)
                if is_step:
                    self.next_step = min(self.next_step, at)
            cancel: Cancel | None = record.get("cancel")
            self.spreads = self.spreads or (cancel is not None and cancel.recursive)

    def _copy(self) -> Snapshot:
        other = Snapshot.__new__(Snapshot)
        other.promises, other.tasks = self.promises, self.tasks
        other.schedules, other.requests = self.schedules, self.requests
        other.letters, other.keys = self.letters, self.keys
        other.next_instant, other.next_step = self.next_instant, self.next_step
        other.spreads = self.spreads
        other._hash = self._hash
        other._before = self
        other._changed = _NO_SET
        return other

    def _seal(self, time: int) -> None:
        self.time = time
        if self.next_instant > time and self.next_step > time:
            return
        self.next_instant = self.next_step = NEVER
        for table in (self.promises, self.tasks, self.schedules, self.keys):
            for instants in table.instants.values():
                for at, is_step in instants:
                    if time < at < self.next_instant:
                        self.next_instant = at
                    if is_step and at < self.next_step:
                        self.next_step = at

    def instants(self, after: int, until: int) -> list[int]:
        """The instants in a span (ms), its end included, at which a deadline passes or a step
        becomes possible; ascending."""
        found = {
            at
            for table in (self.promises, self.tasks, self.schedules, self.keys)
            for instants in table.instants.values()
            for at, _ in instants
        }
        return sorted(at for at in found if after < at <= until and at != NEVER)

    def touched(self, later: Snapshot) -> set[str]:
        """The ids of the records, of any table, that were changed on the way to a snapshot that was
        made of this one."""
        found: set[str] = set()
        while later is not self:
            assert later._before is not None, "it was not made of this one"
            found |= later._changed
            later = later._before
        return found

    def as_json(self) -> JsonObject:
        """For people: the records that are there, sets as sorted lists."""
        shown: JsonObject = {"time": self.time}
        for name in TABLES:
            table: Records = getattr(self, name)
            if table:
                shown[name] = {id: _readable(record) for id, record in sorted(table.items())}
        return shown


def _readable(record: JsonObject) -> JsonObject:
    return {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in record.items()
        if value not in (None, {}, _NO_SET)
    }


class Changes(NamedTuple):
    """What a step left that differs from before."""

    promises: Table
    tasks: Table
    schedules: Table
    letters: Table
    keys: Table
    deleted_schedules: frozenset[str]


def _instants_of(record: JsonObject) -> tuple[tuple[int, bool], ...]:
    """When something becomes possible by itself, and whether that is a step of the background.

    A deadline passes without one: only a promise that somebody waits for needs the step.
    """
    if "timeoutAt" in record:
        if record["state"] != "pending":
            return ()
        deadline = (record["timeoutAt"], bool(record["callbacks"]))
        cancel: Cancel | None = record["cancel"]
        if cancel is None:
            return (deadline,)
        return deadline, (cancel.ends_at, True)
    if "expiresAt" in record:
        if record["expiresAt"] is not None:
            return ((record["expiresAt"], True),)
        return ((record["retryAt"], False),) if record["retryAt"] else ()
    if "until" in record:
        return ((record["until"], False),)
    return ((record["nextRunAt"], True),) if "nextRunAt" in record else ()


def _hash_of(record: JsonObject) -> int:
    """Equal records have equal ones; that is enough."""
    if "timeoutAt" in record:
        settled_at = record["settledAt"]
        asked = (record["cancel"], len(record["callbacks"]))
        return hash((record["id"], record["state"], settled_at, asked))
    if "expiresAt" in record:
        lease = (record["version"], record["expiresAt"], record["pid"], record["retryAt"])
        past = (record["failures"], record["released"])
        return hash((record["id"], record["state"], lease, past, len(record["resumes"])))
    if "holder" in record:
        return hash((record["name"], record["holder"], record["until"]))
    if "diedAt" in record:
        return hash((record["id"], record["diedAt"], record["replays"]))
    return hash((record["id"], record["createdAt"], record["nextRunAt"]))


class Workspace:
    """A state that the model may change, over a snapshot that stays as it is."""

    def __init__(self, base: Snapshot) -> None:
        self._base = base
        self._promises = _CopiedOnUse(base.promises)
        self._tasks = _CopiedOnUse(base.tasks)
        self._schedules = _CopiedOnUse(base.schedules)
        self._letters = _CopiedOnUse(base.letters)
        self._keys = _CopiedOnUse(base.keys)
        tables = (self._promises, self._tasks, self._schedules, self._letters, self._keys)
        self.state = State(*tables)

    def snapshot(self, time: int) -> Snapshot:
        """What the records are now."""
        changes = Changes(
            self._promises.changed(time),
            self._tasks.changed(time),
            self._schedules.changed(time),
            self._letters.changed(time),
            self._keys.changed(time),
            frozenset(self._schedules.deleted),
        )
        return self._base.changed(changes, time)


class _CopiedOnUse(dict[str, JsonObject]):
    """A table whose records are copied when they are looked up one by one. Iteration is for
    reading, and copies nothing."""

    __slots__ = ("_base", "deleted")

    def __init__(self, base: Records) -> None:
        self._base: Table = base
        self.deleted: set[str] = set()

    def __missing__(self, id: str) -> JsonObject:
        if id in self.deleted:
            raise KeyError(id)
        record = {
            name: set(value) if isinstance(value, set) else value
            for name, value in self._base[id].items()
        }
        self[id] = record
        return record

    def __contains__(self, id: object) -> bool:
        return dict.__contains__(self, id) or (id in self._base and id not in self.deleted)

    def __setitem__(self, id: str, record: JsonObject) -> None:
        self.deleted.discard(id)
        super().__setitem__(id, record)

    def __delitem__(self, id: str) -> None:
        self.pop(id, None)
        self.deleted.add(id)

    def get(self, id: str, default: Any = None) -> Any:
        if id not in self:
            return default
        return self[id]

    def _all(self) -> Table:
        merged = self._base | dict(dict.items(self))
        return {id: record for id, record in merged.items() if id not in self.deleted}

    def values(self) -> Any:
        return self._all().values()

    def items(self) -> Any:
        return self._all().items()

    def changed(self, time: int) -> Table:
        """The records that are new or differ, without what no answer shows."""
        base = self._base
        found: Table = {}
        for id, record in dict.items(self):
            if record.get("listeners"):
                record["listeners"] = _NO_SET
            if record.get("retryAt") and (record["queue"] is None or record["retryAt"] <= time):
                record["retryAt"] = 0
            if base.get(id) != record:
                found[id] = record
        return found
