"""The front of a queue: its first tasks, its lanes, and how many tasks are held or wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from heapq import merge
from itertools import islice, product
from typing import Final

import msgspec

from kept.protocol.storage import Head, LaneHead, LaneSpan, Slots

# So many functions are looked for one by one, whether they have tasks or not.
FEW_FUNCTIONS: Final = 4

_IS_READY: Final = "state = 'pending' AND delivery = 'pull' AND ready = 1"
_IS_DELAYED: Final = "state = 'pending' AND delivery = 'pull' AND ready = 0"
# Every function that has ready tasks in the queue, found in steps: one seek each.
_READY_FUNCTIONS: Final = (
    "WITH RECURSIVE names (name) AS ("
    f"SELECT min(function) FROM tasks WHERE tenant = ?1 AND queue = ?2 AND {_IS_READY} "
    f"AND function > '' UNION ALL SELECT (SELECT min(function) FROM tasks WHERE tenant = ?1 "
    f"AND queue = ?2 AND {_IS_READY} AND function > name) FROM names WHERE name IS NOT NULL) "
    "SELECT name FROM names WHERE name IS NOT NULL LIMIT ?3"
)
_OF_FUNCTION: Final = f"tenant = ?1 AND queue = ?2 AND function IS ?3 AND {_IS_READY}"
_ENDS: Final = (
    f"SELECT (SELECT min(lane) FROM tasks WHERE {_OF_FUNCTION}), "
    f"(SELECT max(lane) FROM tasks WHERE {_OF_FUNCTION})"
)
# Lanes in steps too, from one name on.
_LANES: Final = (
    "WITH RECURSIVE names (name) AS ("
    f"SELECT min(lane) FROM tasks WHERE {_OF_FUNCTION} AND lane >= ?4 "
    f"UNION ALL SELECT (SELECT min(lane) FROM tasks WHERE {_OF_FUNCTION} AND lane > name) "
    "FROM names WHERE name IS NOT NULL LIMIT ?5) "
    "SELECT name FROM names WHERE name IS NOT NULL"
)
_READY: Final = (
    "SELECT rank, seq FROM tasks WHERE tenant = ? AND queue = ? AND function IS ? AND lane = ? "
    f"AND {_IS_READY} ORDER BY rank, seq LIMIT ?"
)
# The first task of many lanes.
_FIRSTS: Final = (
    f"SELECT j.value, 0, (SELECT seq FROM tasks WHERE {_OF_FUNCTION} AND lane = j.value "
    "ORDER BY rank, seq LIMIT 1) FROM json_each(?4) j"
)
# The fronts of many lanes; each is as long.
_FRONTS: Final = (
    "SELECT j.value, x.rank, x.seq FROM json_each(?4) j CROSS JOIN tasks x ON x.seq IN ("
    f"SELECT seq FROM tasks WHERE {_OF_FUNCTION} AND lane = j.value ORDER BY rank, seq LIMIT ?5)"
)
_DELAYED: Final = (
    "SELECT retry_at, seq FROM tasks WHERE tenant = ? AND queue = ? AND retry_at <= ? "
    f"AND {_IS_DELAYED} ORDER BY retry_at, seq LIMIT ?"
)
_DELAYED_OF: Final = (
    "SELECT retry_at, seq FROM tasks WHERE tenant = ? AND queue = ? AND retry_at <= ? "
    f"AND {_IS_DELAYED} AND function IN (SELECT value FROM json_each(?)) "
    "ORDER BY retry_at, seq LIMIT ?"
)
_ACQUIRED: Final = (
    "SELECT count(*) FROM tasks WHERE tenant = ? AND queue = ? "
    "AND state = 'acquired' AND queue IS NOT NULL"
)
_ACQUIRED_OF_LANES: Final = (
    "SELECT j.value, (SELECT count(*) FROM tasks WHERE tenant = ?1 AND queue = ?2 "
    "AND lane = j.value AND state = 'acquired' AND queue IS NOT NULL) FROM json_each(?3) j"
)
_READY_DEPTH: Final = f"SELECT count(*) FROM tasks WHERE tenant = ? AND queue = ? AND {_IS_READY}"
_DELAYED_DEPTH: Final = (
    f"SELECT count(*) FROM tasks WHERE tenant = ? AND queue = ? AND {_IS_DELAYED}"
)


class Fronts:
    """Looks at the queues of one tenant. Tasks are named by their seq."""

    def __init__(self, connection: sqlite3.Connection, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant

    def head(self, head: Head, count: int, now: int) -> tuple[list[int], bool]:
        """The first tasks, ready ones by rank and then those that are due by now; and whether
        ready ones are in several lanes, in which case none is given."""
        functions = self._functions(head)
        lanes = {lane for function in functions for lane in self._ends(head, function)}
        if len(lanes) > 1:
            return [], True
        ready = self._first(head, functions, next(iter(lanes)), count) if lanes else []
        return ready + self._delayed(head, count - len(ready), now), False

    def lanes(self, head: Head, span: LaneSpan) -> list[str]:
        """The names of a span of lanes."""
        functions = self._functions(head)
        found = self._names(head, functions, span.start, span.size)
        left = span.size - len(found)
        if left > 0:
            before = self._names(head, functions, "", left)
            found += [lane for lane in before if lane < span.start]
        return found

    def fronts(self, wanted: Mapping[LaneHead, int]) -> dict[LaneHead, list[int]]:
        """The first ready tasks by rank of each of these lanes."""
        lanes: dict[Head, dict[int, list[str]]] = {}
        for (head, lane), count in wanted.items():
            lanes.setdefault(head, {}).setdefault(count, []).append(lane)
        found: dict[LaneHead, list[tuple[int, int]]] = {front: [] for front in wanted}
        for head, by_count in lanes.items():
            functions = self._functions(head)
            for function, (count, names) in product(functions, by_count.items()):
                key = (self._tenant, head.queue, function, _text(names))
                # Which of one is the first needs no rank, and so no look at the task.
                is_simple = count == len(functions) == 1
                query, values = (_FIRSTS, key) if is_simple else (_FRONTS, (*key, count))
                for lane, rank, seq in self._connection.execute(query, values):
                    if seq is not None:
                        found[LaneHead(head, lane)].append((rank, seq))
        return {
            front: [seq for _, seq in sorted(tasks)[: wanted[front]]]
            for front, tasks in found.items()
        }

    def acquired(self, slots: Iterable[Slots]) -> dict[Slots, int]:
        """How many tasks of each queue or lane are acquired."""
        found: dict[Slots, int] = {}
        lanes: dict[str, list[str]] = {}
        for each in slots:
            if each.lane is None:
                found[each] = self._count(_ACQUIRED, self._tenant, each.queue)
            else:
                lanes.setdefault(each.queue, []).append(each.lane)
        for queue, names in lanes.items():
            key = (self._tenant, queue, _text(names))
            for lane, count in self._connection.execute(_ACQUIRED_OF_LANES, key):
                found[Slots(queue, lane)] = count
        return found

    def depth(self, queue: str) -> int:
        """How many tasks of the queue wait."""
        return sum(
            self._count(query, self._tenant, queue) for query in (_READY_DEPTH, _DELAYED_DEPTH)
        )

    def _count(self, query: str, *values: str) -> int:
        (count,) = self._connection.execute(query, values).fetchone()
        assert isinstance(count, int)
        return count

    def _functions(self, head: Head) -> list[str | None]:
        """The functions to look for: those that are wanted, or, where these are many, those of them
        that have ready tasks. A worker knows a hundred functions, and few of them wait."""
        key = (self._tenant, head.queue)
        if head.functions is None:
            rows = self._connection.execute(_READY_FUNCTIONS, (*key, -1))
            return [None, "", *(name for (name,) in rows)]
        wanted = dict.fromkeys(head.functions)
        if len(wanted) > FEW_FUNCTIONS:
            rows = self._connection.execute(_READY_FUNCTIONS, (*key, len(wanted)))
            ready = [name for (name,) in rows]
            if len(ready) < len(wanted):
                return [name for name in ("", *ready) if name in wanted]
        return list(wanted)

    def _ends(self, head: Head, function: str | None) -> set[str]:
        """The first and the last lane that has ready tasks of a function."""
        row = self._connection.execute(_ENDS, (self._tenant, head.queue, function)).fetchone()
        return {lane for lane in row if lane is not None}

    def _names(self, head: Head, functions: list[str | None], start: str, count: int) -> list[str]:
        """So many lanes from a name on, in order."""
        key = (self._tenant, head.queue)
        each = [
            [name for (name,) in self._connection.execute(_LANES, (*key, function, start, count))]
            for function in functions
        ]
        if len(each) == 1:
            return each[0]
        return list(islice(dict.fromkeys(merge(*each)), count))

    def _first(self, head: Head, functions: list[str | None], lane: str, count: int) -> list[int]:
        found: list[tuple[int, int]] = []
        for function in functions:
            key = (self._tenant, head.queue, function, lane, count)
            found += self._connection.execute(_READY, key).fetchall()
        found.sort()
        return [seq for _, seq in found[:count]]

    def _delayed(self, head: Head, count: int, now: int) -> list[int]:
        if count <= 0:
            return []
        key = (self._tenant, head.queue, now)
        if head.functions is None:
            rows = self._connection.execute(_DELAYED, (*key, count))
        else:
            rows = self._connection.execute(_DELAYED_OF, (*key, _text(list(head.functions)), count))
        return [seq for _, seq in rows]


def _text(names: list[str]) -> str:
    return msgspec.json.encode(names).decode()
