"""Reading the tables of one tenant: what a load, a scan and a dump find."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import merge, nsmallest
from itertools import chain, islice
from typing import TypeVar

from kept.protocol.limits import MAX_CHILDREN_WALKED, MAX_EDGES_PER_STEP, MAX_PRELOAD_RECORDS
from kept.protocol.records import DeadLetter, Promise, TaskState
from kept.protocol.requests import DeadList
from kept.protocol.storage import (
    ChildPage,
    Children,
    Dump,
    Edge,
    Head,
    LaneHead,
    Loaded,
    Member,
    Members,
    PendingChildren,
    QueueCounts,
    Reads,
    TreePage,
)
from kept.stores.memory.tables import Tables
from kept.stores.paging import page_of, position_of

V = TypeVar("V")


def load(tables: Tables, reads: Reads, now: int) -> Loaded:
    """The records under the keys of `reads`."""
    loaded = Loaded()
    for head, count in reads.heads.items():
        lanes = list(islice(_lanes(tables, head), 2))
        if len(lanes) > 1:
            loaded.laned.add(head)
        loaded.heads[head] = [] if len(lanes) > 1 else _head(tables, head, lanes, count, now)
        _add_objects(tables, loaded, loaded.heads[head])
    for head, (start, count) in reads.lanes.items():
        names = list(islice(_lanes(tables, head, start), count))
        before = islice(_lanes(tables, head), count - len(names))
        loaded.lanes[head] = names + [lane for lane in before if lane < start]
    for front, count in reads.fronts.items():
        loaded.fronts[front] = _first(tables, front, count)
        _add_objects(tables, loaded, loaded.fronts[front])
    for slots in reads.slots:
        loaded.slots[slots] = tables.acquired[slots]
    for queue in reads.depths:
        loaded.depths[queue] = tables.depths[queue]
    for tree in sorted(reads.trees, key=str):
        loaded.trees[tree] = members(tables, tree)
    for prefix in sorted(reads.entry_prefixes):
        keys = (key for key in tables.entries if key.kind is prefix.kind)
        found_keys = (key for key in keys if key.name.startswith(prefix.prefix))
        loaded.entry_prefixes[prefix] = nsmallest(prefix.limit, found_keys)
    for request in sorted(reads.requests):
        loaded.requests[request] = sorted(tables.requests.get(request, ()))
        _add_objects(tables, loaded, loaded.requests[request])
    for id in sorted(reads.children):
        page = children(tables, id, None, MAX_PRELOAD_RECORDS)
        loaded.children[id] = page
        _add_objects(tables, loaded, (child.id for child in (*page.released, *page.others)))
    for wanted in sorted(reads.pending_children):
        found = pending_children(tables, wanted)
        loaded.pending_children[wanted] = found
        _add_objects(tables, loaded, found.ids)
    _add_objects(tables, loaded, sorted(reads.objects))
    for id in sorted(reads.edges):
        _add_edges(tables, loaded, id)
    for id in sorted(reads.schedules):
        loaded.schedules[id] = tables.schedules.get(id)
    for key in sorted(reads.messages):
        loaded.messages[key] = tables.outbox.get(key)
    for id in sorted(reads.dead_letters):
        loaded.dead_letters[id] = tables.dead_letters.get(id)
    for entry_key in sorted(reads.entries):
        loaded.entries[entry_key] = tables.entries.get(entry_key)
    return loaded


def _add_objects(tables: Tables, loaded: Loaded, ids: Iterable[str]) -> None:
    for id in ids:
        loaded.promises[id] = tables.promises.get(id)
        loaded.tasks[id] = tables.tasks.get(id)


def _add_edges(tables: Tables, loaded: Loaded, id: str) -> None:
    for firsts, found in (
        (tables.first_callbacks, loaded.callbacks),
        (tables.first_listeners, loaded.listeners),
    ):
        first = firsts[id].first(MAX_EDGES_PER_STEP + 1) if id in firsts else []
        found[id] = [to for (to,) in first[:MAX_EDGES_PER_STEP]]
        if len(first) > MAX_EDGES_PER_STEP:
            loaded.more_edges.add(id)


def _head(tables: Tables, head: Head, lanes: list[str], count: int, now: int) -> list[str]:
    ready = [id for lane in lanes for id in _first(tables, LaneHead(head, lane), count)]
    agendas = _wanted(tables.waiting, head)
    left = count - len(ready)
    delayed = sorted(moment for each in agendas for moment in each.first(left, now))
    return ready + [moment.id for moment in delayed[:left]]


def _wanted(lines: Mapping[str, Mapping[str | None, V]], head: Head) -> list[V]:
    """What stands in a queue for the functions that a head names."""
    line = lines.get(head.queue, {})
    functions = line if head.functions is None else dict.fromkeys(head.functions)
    return [line[name] for name in functions if name in line]


def _lanes(tables: Tables, head: Head, start: str = "") -> Iterator[str]:
    """The lanes that have ready tasks, by name from one on."""
    last: str | None = None
    for lane in merge(*(each.names_from(start) for each in _wanted(tables.ready, head))):
        if lane != last:
            yield lane
        last = lane


def _first(tables: Tables, front: LaneHead, count: int) -> list[str]:
    """The first ready tasks of a lane by rank."""
    each = [lanes.first(front.lane, count) for lanes in _wanted(tables.ready, front.head)]
    return [moment.id for moment in sorted(chain(*each))[:count]]


def children(tables: Tables, task_id: str, cursor: str | None, limit: int) -> Children:
    """A page of a task's preload."""
    position = position_of(cursor)
    numbers = tables.releases.get(task_id, {})
    released: Iterator[Promise] = iter(())
    after: str | None = None
    if position.released:
        start = -1 if position.after is None else numbers.get(position.after, -1)
        order = sorted((number, id) for id, number in numbers.items() if number > start)
        released = (tables.promises[id] for _, id in order if id in tables.promises)
    else:
        after = position.after
    left = (
        id
        for id in tables.children.get(task_id, ())
        if id not in numbers and (after is None or id > after)
    )
    others = (tables.promises[id] for id in nsmallest(limit + 1, left))
    return page_of(released, others, limit)


def pending_children(tables: Tables, wanted: ChildPage) -> PendingChildren:
    """A page of the children of a promise that are pending."""
    parent, after, limit = wanted
    promises = tables.promises
    ids = (id for id in tables.children.get(parent, ()) if id > after and id != parent)
    walked = nsmallest(MAX_CHILDREN_WALKED + 1, (id for id in ids if promises[id].parent == parent))
    more = walked[MAX_CHILDREN_WALKED - 1] if len(walked) > MAX_CHILDREN_WALKED else None
    found = [id for id in walked[:MAX_CHILDREN_WALKED] if promises[id].pending]
    if len(found) > limit:
        return PendingChildren(found[:limit], found[limit - 1])
    return PendingChildren(found, more)


def members(tables: Tables, page: TreePage) -> Members:
    """A page of the promises of an origin, the youngest first and its own last."""
    until = tables.numbers.get(page.before) if page.before is not None else None
    tree = tables.in_order(page.origin)
    if page.before == page.origin and until is not None:
        return Members([], more=False)
    older = (id for id in reversed(tree) if until is None or tables.numbers[id] < until)
    ids = list(islice((id for id in older if id != page.origin), page.limit + 1))
    if page.origin in tree and len(ids) <= page.limit:
        ids.append(page.origin)
    return Members([_member(tables, id) for id in ids[: page.limit]], len(ids) > page.limit)


def _member(tables: Tables, id: str) -> Member:
    promise, task = tables.promises[id], tables.tasks.get(id)
    named = id in tables.named or id in tables.dead_letters
    edges = (tables.callbacks, tables.listeners, tables.resumes, tables.awaiting, tables.resumed)
    parents = {promise.parent, promise.branch} - {None, id}
    return Member(
        id,
        promise.state,
        promise.timeout_at,
        promise.created_at,
        promise.settled_at,
        promise.tags,
        None if task is None else task.version,
        named or any(id in each for each in edges),
        any(p is not None and p in tables.promises and tables.promises[p].pending for p in parents),
    )


def beyond(records: Mapping[str, V], after: str | None, limit: int, prefix: str = "") -> list[V]:
    """The first `limit` records by id, beyond `after`, whose ids begin with `prefix`."""
    ids = (id for id in records if (after is None or id > after) and id.startswith(prefix))
    return [records[id] for id in nsmallest(limit, ids)]


def is_equal(promise: Promise, equals: Mapping[str, str]) -> bool:
    """Whether a promise has these values in the columns that can be searched."""
    return all(
        promise.id.startswith(value) if name == "prefix" else getattr(promise, name) == value
        for name, value in equals.items()
    )


def is_wanted(letter: DeadLetter, filter: DeadList) -> bool:
    """Whether a dead letter matches: `since` is the first instant of its death, `until` past the last."""
    return (
        (filter.queue is None or letter.queue == filter.queue)
        and (filter.function is None or letter.function == filter.function)
        and (filter.reason is None or letter.reason == filter.reason)
        and (filter.since is None or letter.died_at >= filter.since)
        and (filter.until is None or letter.died_at < filter.until)
    )


def queue_counts(tables: Tables, queue: str, now: int) -> QueueCounts:
    """How many tasks of a queue are in which state."""
    counts = QueueCounts()
    waiting: list[tuple[int, int]] = []
    for task in tables.tasks.values():
        if task.queue != queue:
            continue
        if task.state is TaskState.PENDING and task.retry_at is not None:
            if task.retry_at > now:
                counts.delayed += 1
                continue
            counts.due += 1
            waiting.append((task.rank if task.ready else task.retry_at, task.retry_at))
        counts.acquired += task.state is TaskState.ACQUIRED
        counts.suspended += task.state is TaskState.SUSPENDED
        counts.halted += task.state is TaskState.HALTED
    counts.oldest_due_at = min(waiting)[1] if waiting else None
    counts.dead = sum(letter.queue == queue for letter in tables.dead_letters.values())
    return counts


def dump(tables: Tables) -> Dump:
    """Everything."""
    return Dump(
        promises=dict(tables.promises),
        tasks=dict(tables.tasks),
        callbacks=_edges(tables.callbacks),
        listeners=_edges(tables.listeners),
        resumes=_edges(tables.resumes),
        releases={
            Edge(of, to): number
            for of, numbers in tables.releases.items()
            for to, number in numbers.items()
        },
        schedules=dict(tables.schedules),
        outbox=dict(tables.outbox),
        dead_letters=dict(tables.dead_letters),
        entries=dict(tables.entries),
    )


def _edges(edges: Mapping[str, Mapping[str, None]]) -> set[Edge]:
    return {Edge(of, to) for of, tos in edges.items() for to in tos}
