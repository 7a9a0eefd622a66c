"""The records of one tenant that a batch has loaded, and what it did to them.

Handlers read and write here. A read of something that is not loaded raises `NotLoaded`, which
names the keys: the caller undoes the request, loads them and applies it again. So planning the
reads of a batch (reads.py) is an optimisation, never a matter of correctness.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kept.machine.events import Event, TaskMoved
from kept.machine.heads import Heads
from kept.machine.moves import Moves
from kept.machine.not_loaded import NotLoaded
from kept.machine.transitions import PROMISE_EDGES, TASK_EDGES
from kept.protocol.addresses import queue_of
from kept.protocol.entries import Entry, EntryKey, EntryKind, KeyHolder, QueueSettings
from kept.protocol.keys import has_keys, keys_of
from kept.protocol.records import (
    DeadLetter,
    Delivery,
    MessageKey,
    OutboxEntry,
    Promise,
    ScheduleRecord,
    Task,
    TaskState,
)
from kept.protocol.storage import (
    OTHERS_CURSOR,
    Changes,
    ChildPage,
    Children,
    Edge,
    EntryPrefix,
    Loaded,
    Members,
    PendingChildren,
    Reads,
    Slots,
    TreePage,
)

_ABSENT: Final = object()
# An enum's attribute takes longer to find than a name of the module, and these are on the hot path.
_PENDING: Final = TaskState.PENDING
_ACQUIRED: Final = TaskState.ACQUIRED
_PULL: Final = Delivery.PULL


class WorkingSet:
    """Loaded records by key, a log to undo the request at hand, and the changes of the batch."""

    def __init__(self) -> None:
        self._promises: dict[str, Promise | None] = {}
        self._tasks: dict[str, Task | None] = {}
        self._schedules: dict[str, ScheduleRecord | None] = {}
        self._messages: dict[MessageKey, OutboxEntry | None] = {}
        self._dead_letters: dict[str, DeadLetter | None] = {}
        self._entries: dict[EntryKey, Entry | None] = {}
        self._callbacks: dict[Edge, bool] = {}
        self._listeners: dict[Edge, bool] = {}
        self._resumes: dict[Edge, bool] = {}
        # Edges that the batch wrote, by their first end; some may have been undone since.
        self._resumes_of: dict[str, dict[Edge, None]] = {}
        self._releases_of: dict[str, dict[Edge, None]] = {}
        self._resumes_cleared: dict[str, bool] = {}
        self._releases: dict[Edge, int] = {}
        self._undrained: dict[str, bool] = {}
        # What was loaded of edges, and in which order: of promise -> to.
        self._awaiters: dict[str, dict[str, None]] = {}
        self._addresses: dict[str, dict[str, None]] = {}
        self._edges_known: set[str] = set()
        self._more_edges: set[str] = set()
        self._children: dict[str, Children] = {}
        self._born_children: dict[str, dict[str, None]] = {}
        self._pending_children: dict[ChildPage, PendingChildren] = {}
        # How many promises this batch canceled by spreading to them, and before the request at hand.
        self.canceled = 0
        self._canceled_before = 0
        self._head_children = False
        # How many promises of settled trees this batch looked at, and before the request at hand.
        self.left = 0
        self._left_before = 0
        self._removed: dict[str, bool] = {}
        # The latest entry of roots that settle in this batch, by when their trees are looked at.
        self._retiring: dict[int, EntryKey] = {}
        self._trees: dict[TreePage, Members] = {}
        self._entry_prefixes: dict[EntryPrefix, list[EntryKey]] = {}
        self._requests: dict[str, list[str]] = {}
        # Tasks that the batch wrote under a request's id.
        self._requested: dict[str, dict[str, None]] = {}
        self.heads = Heads()
        self._slots: dict[Slots, int] = {}
        self._depths: dict[str, int] = {}
        # What the batch did to those numbers; None: to be counted when somebody asks.
        self._moves: Moves | None = None
        # By how much the request at hand changed how many tasks of a queue wait.
        self.depth_moves: dict[str, int] = {}
        # What the batch did, for whoever counts; how much of it is sure to stay.
        self.events: list[Event] = []
        self._events_kept = 0
        # Promises settled by the request at hand, whose edges are to be drained.
        self.settled: list[str] = []
        # What a table held under a key before the batch first wrote it.
        self._before: dict[str, dict[Any, Any]] = {}
        self._undo: list[tuple[str, Any, Any]] = []

    # -- loading ---------------------------------------------------------------------------

    def add(self, reads: Reads, loaded: Loaded, now: int) -> Reads:
        """Takes in what a store found under `reads`; answers what is needed next because of it.

        Records that the batch has already changed are newer than the store's and stay.
        """
        for id, promise in loaded.promises.items():
            self._promises.setdefault(id, promise)
        for id, task in loaded.tasks.items():
            self._tasks.setdefault(id, task)
        for id, schedule in loaded.schedules.items():
            self._schedules.setdefault(id, schedule)
        for key, message in loaded.messages.items():
            self._messages.setdefault(key, message)
        for id, letter in loaded.dead_letters.items():
            self._dead_letters.setdefault(id, letter)
        for entry_key, entry in loaded.entries.items():
            self._entries.setdefault(entry_key, entry)
        for id, children in loaded.children.items():
            self._children.setdefault(id, children)
        for page, pending in loaded.pending_children.items():
            self._pending_children.setdefault(page, pending)
        for tree, members in loaded.trees.items():
            self._trees.setdefault(tree, members)
        for prefix, keys in loaded.entry_prefixes.items():
            self._entry_prefixes.setdefault(prefix, keys)
        self._requests.update(loaded.requests)
        for head, ids in loaded.heads.items():
            tasks = [task for id in ids if (task := self._tasks[id]) is not None]
            self.heads.add(head, tasks, reads.heads[head], laned=head in loaded.laned)
        for head, names in loaded.lanes.items():
            self.heads.add_lanes(head, reads.lanes[head], names)
        if loaded.fronts:
            self.heads.add_fronts(
                reads.fronts,
                {
                    front: [task for id in ids if (task := self._tasks[id]) is not None]
                    for front, ids in loaded.fronts.items()
                },
            )
        for slots, count in loaded.slots.items():
            self._slots.setdefault(slots, count)
        for queue, count in loaded.depths.items():
            self._depths.setdefault(queue, count)
        self._add_edges(loaded)
        self._head_children = self._head_children or reads.head_children
        return self._follow(loaded, now)

    def _add_edges(self, loaded: Loaded) -> None:
        for awaited, awaiters in loaded.callbacks.items():
            self._edges_known.add(awaited)
            for awaiter in awaiters:
                self._awaiters.setdefault(awaited, {})[awaiter] = None
                self._callbacks.setdefault(Edge(awaited, awaiter), True)
        for awaited, addresses in loaded.listeners.items():
            self._edges_known.add(awaited)
            for address in addresses:
                self._addresses.setdefault(awaited, {})[address] = None
                self._listeners.setdefault(Edge(awaited, address), True)
        self._more_edges |= loaded.more_edges

    def _follow(self, loaded: Loaded, now: int) -> Reads:
        """Late promises are settled by whoever looks, which drains edges, which wakes awaiters. Who
        settles lets keys go, and who looks at a key looks at its holder. Who settles a root (its edges
        are known then) needs the retention of its queue; who creates where ids are kept needs them."""
        reads = Reads()
        keeps_ids = any(
            entry is not None and isinstance(entry.data, QueueSettings) and entry.data.keep_ids
            for entry in loaded.entries.values()
        )
        for id, promise in loaded.promises.items():
            if promise is None and keeps_ids:
                reads.entries.add(EntryKey(EntryKind.KEPT_ID, id))
            if promise is None or not promise.pending:
                continue
            if id in self._edges_known and promise.origin == id and promise.target is not None:
                queue = queue_of(promise.target)
                key = None if queue is None else EntryKey(EntryKind.QUEUE, queue)
                if key is not None and key not in self._entries:
                    reads.entries.add(key)
            if has_keys(promise.tags):
                reads.entries.update(
                    key for key in keys_of(promise.tags).values() if key not in self._entries
                )
            if promise.timeout_at <= now and id not in self._edges_known:
                reads.edges.add(id)
        for entry in loaded.entries.values():
            holder = entry.data.promise if entry and isinstance(entry.data, KeyHolder) else None
            if holder is not None and holder not in self._promises:
                reads.objects.add(holder)
        for awaiters in loaded.callbacks.values():
            reads.objects.update(id for id in awaiters if id not in self._promises)
        if self._head_children:
            for ids in (*loaded.heads.values(), *loaded.fronts.values()):
                reads.children.update(id for id in ids if id not in self._children)
        return reads

    def knows_object(self, id: str) -> bool:
        return id in self._promises

    # -- reading ---------------------------------------------------------------------------

    def known_promise(self, id: str) -> Promise | None:
        """The stored promise, if it happens to be loaded."""
        return self._promises.get(id)

    def wrote_promise(self, id: str) -> bool:
        """Whether the batch wrote a promise, or tried to."""
        return id in self._before.get("promises", ())

    def members(self, page: TreePage) -> Members:
        """A page of the promises of an origin as they were before the batch."""
        if page not in self._trees:
            raise NotLoaded(Reads(trees={page}))
        return self._trees[page]

    def entry_keys(self, prefix: EntryPrefix) -> list[EntryKey]:
        """Entries whose names begin alike, as they were before the batch."""
        if prefix not in self._entry_prefixes:
            raise NotLoaded(Reads(entry_prefixes={prefix}))
        return self._entry_prefixes[prefix]

    def require(self, reads: Reads) -> None:
        """Asks for promises, entries, slots and trees in one load."""
        missing = Reads(
            objects={id for id in reads.objects if id not in self._promises},
            slots=reads.slots - self._slots.keys(),
            entries={key for key in reads.entries if key not in self._entries},
            entry_prefixes=reads.entry_prefixes - self._entry_prefixes.keys(),
            trees=reads.trees - self._trees.keys(),
        )
        if missing:
            raise NotLoaded(missing)

    def promise(self, id: str) -> Promise | None:
        """The stored promise, not projected."""
        try:
            return self._promises[id]
        except KeyError:
            raise NotLoaded(Reads(objects={id})) from None

    def task(self, id: str) -> Task | None:
        try:
            return self._tasks[id]
        except KeyError:
            raise NotLoaded(Reads(objects={id})) from None

    def schedule(self, id: str) -> ScheduleRecord | None:
        try:
            return self._schedules[id]
        except KeyError:
            raise NotLoaded(Reads(schedules={id})) from None

    def message(self, key: MessageKey) -> OutboxEntry | None:
        try:
            return self._messages[key]
        except KeyError:
            raise NotLoaded(Reads(messages={key})) from None

    def dead_letter(self, id: str) -> DeadLetter | None:
        try:
            return self._dead_letters[id]
        except KeyError:
            raise NotLoaded(Reads(dead_letters={id})) from None

    def entry(self, key: EntryKey) -> Entry | None:
        try:
            return self._entries[key]
        except KeyError:
            raise NotLoaded(Reads(entries={key})) from None

    def callbacks_of(self, awaited: str) -> list[str]:
        """The awaiting tasks that are loaded; there may be more than one step drains."""
        self.require_edges(awaited)
        edges = self._callbacks
        return [x for x in self._awaiters.get(awaited, ()) if edges.get(Edge(awaited, x))]

    def listeners_of(self, awaited: str) -> list[str]:
        self.require_edges(awaited)
        edges = self._listeners
        return [x for x in self._addresses.get(awaited, ()) if edges.get(Edge(awaited, x))]

    def has_edges(self, awaited: str) -> bool:
        """Whether there is a callback or a listener, loaded or not."""
        if awaited in self._more_edges:
            return True
        self.require_edges(awaited)
        if awaited not in self._awaiters and awaited not in self._addresses:
            return False
        return bool(self.listeners_of(awaited) or self.callbacks_of(awaited))

    def require_edges(self, awaited: str) -> None:
        if awaited not in self._edges_known:
            raise NotLoaded(Reads(edges={awaited}))

    def children_of(self, id: str) -> tuple[list[str], list[str], str | None]:
        """Ids of released children in order, of the others, and the cursor of the next page: what
        was loaded, with what the batch did since."""
        page = self._children.get(id)
        if page is None:
            raise NotLoaded(Reads(children={id}))
        released = [child.id for child in page.released]
        released = [id for id in released if self._promises.get(id) is not None]
        others = {c.id for c in page.others if self._promises.get(c.id) is not None}
        if page.more is None or page.more.startswith(OTHERS_CURSOR):
            others.update(self._born_within(id, page.more))
            released += self._released_since(id, released)
            others.difference_update(released)
        return released, sorted(others), page.more

    def _born_within(self, id: str, more: str | None) -> list[str]:
        """Children born in this batch that belong on the loaded page."""
        born = [c for c in self._born_children.get(id, ()) if self._promises.get(c) is not None]
        return born if more is None else [c for c in born if OTHERS_CURSOR + c <= more]

    def _released_since(self, id: str, released: Iterable[str]) -> list[str]:
        """What this batch released to a task beyond the loaded page, in order."""
        known = set(released)
        numbers = {
            edge.to: number
            for edge in self._releases_of.get(id, ())
            if (number := self._releases.get(edge)) is not None and edge.to not in known
        }
        return [to for to in sorted(numbers, key=numbers.__getitem__) if self.promise(to)]

    def pending_children(self, wanted: ChildPage) -> PendingChildren:
        """A page of a promise's children that are pending (as stored): what was loaded, with what
        the batch did since."""
        page = self._pending_children.get(wanted)
        if page is None:
            raise NotLoaded(Reads(pending_children={wanted}))
        ids = {id for id in page.ids if self._is_pending(id)}
        for id in self._born_children.get(wanted.parent, ()):
            if id > wanted.after and (page.more is None or id <= page.more):
                child = self._promises.get(id)
                if child is not None and child.pending and child.parent == wanted.parent:
                    ids.add(id)
        return PendingChildren(sorted(ids), page.more)

    def _is_pending(self, id: str) -> bool:
        promise = self._promises.get(id)
        return promise is not None and promise.pending

    def require_cancelable(self, ids: Iterable[str], entries: set[EntryKey]) -> None:
        """What canceling each of these needs, in one load: edges, whether it has children, and the
        entries of those that were asked before."""
        reads = Reads(entries={key for key in entries if key not in self._entries})
        for id in ids:
            if id not in self._edges_known:
                reads.edges.add(id)
            first = ChildPage(id, "", 1)
            if first not in self._pending_children:
                reads.pending_children.add(first)
        if reads:
            raise NotLoaded(reads)

    def tasks_of_request(self, request_id: str) -> list[str]:
        """Tasks whose last request had this id, or had it earlier in this batch."""
        if request_id not in self._requests:
            raise NotLoaded(Reads(requests={request_id}))
        requested = self._requested.get(request_id, {})
        return sorted({*self._requests[request_id], *requested})

    def acquired(self, slots: Slots) -> int:
        """How many tasks of a queue, or of a lane of it, are acquired."""
        if slots not in self._slots:
            raise NotLoaded(Reads(slots={slots}))
        return self._slots[slots] + self._moved().acquired.get(slots, 0)

    def depth(self, queue: str) -> int:
        """How many tasks of a queue are pending."""
        if queue not in self._depths:
            raise NotLoaded(Reads(depths={queue}))
        return self._depths[queue] + self._moved().waiting.get(queue, 0)

    def _moved(self) -> Moves:
        if self._moves is None:
            self._moves = Moves()
            for id, before in self._before.get("tasks", {}).items():
                # What is absent was never loaded, so it is written now and counts as new.
                known = before if isinstance(before, Task) else None
                self._moves.note(known, self._tasks.get(id))
        return self._moves

    # -- writing ---------------------------------------------------------------------------

    def put_promise(self, promise: Promise) -> None:
        id = promise.id
        before = self._promises[id]
        assert before is None or (before.state, promise.state) in PROMISE_EDGES, promise
        if before is None:
            self._edges_known.add(id)
            for of in (promise.parent, promise.branch):
                if of is not None and of != id:
                    self._born_children.setdefault(of, {})[id] = None
        self._set("promises", self._promises, id, promise)

    def remove_promise(self, id: str) -> None:
        """Removes a settled promise with its task and all that begins at either."""
        promise = self._promises.get(id)
        assert promise is None or not promise.pending, id
        self._set("promises", self._promises, id, None)
        self._set("tasks", self._tasks, id, None)
        self._set("removed", self._removed, id, True)

    def put_task(self, task: Task) -> None:
        before = self._tasks[task.id]
        assert before is None or (before.state, task.state) in TASK_EDGES, task
        is_pending = task.state is _PENDING
        assert is_pending == (task.retry_at is not None), task
        assert (task.state is _ACQUIRED) == (task.expires_at is not None), task
        self._set("tasks", self._tasks, task.id, task)
        if self._moves is not None:
            self._moves.note(before, task)
        if (
            before is None
            or before.state is not task.state
            or before.version != task.version
            or before.failures != task.failures
        ):
            self.events.append(TaskMoved(before, task))
        if task.queue is not None and is_pending != (
            before is not None and before.state is _PENDING
        ):
            moved = self.depth_moves.get(task.queue, 0)
            self.depth_moves[task.queue] = moved + (1 if is_pending else -1)
        if task.last_request is not None:
            self._requested.setdefault(task.last_request, {})[task.id] = None
        if is_pending and task.delivery is _PULL:
            self.heads.became_pending(task)
        if before is not None and before.state is _ACQUIRED:
            self.heads.freed(before)

    def put_schedule(self, schedule: ScheduleRecord) -> None:
        self._set("schedules", self._schedules, schedule.id, schedule)

    def remove_schedule(self, id: str) -> None:
        self._set("schedules", self._schedules, id, None)

    def put_message(self, entry: OutboxEntry) -> None:
        self._set("outbox", self._messages, entry.key, entry)

    def remove_message(self, key: MessageKey) -> None:
        self._set("outbox", self._messages, key, None)

    def put_dead_letter(self, letter: DeadLetter) -> None:
        self._set("dead_letters", self._dead_letters, letter.id, letter)

    def remove_dead_letter(self, id: str) -> None:
        self._set("dead_letters", self._dead_letters, id, None)

    def put_entry(self, entry: Entry) -> None:
        self._set("entries", self._entries, entry.key, entry)
        if entry.key.kind is EntryKind.QUEUE:
            self.heads.settings_changed(entry.key.name)

    def latest_retiring(self, due_at: int) -> Entry | None:
        """The entry that this batch put last for roots whose trees are looked at at an instant."""
        key = self._retiring.get(due_at)
        return None if key is None else self._entries.get(key)

    def put_retiring(self, entry: Entry) -> None:
        assert entry.due_at is not None, entry
        self._retiring[entry.due_at] = entry.key
        self.put_entry(entry)

    def remove_entry(self, key: EntryKey) -> None:
        self._set("entries", self._entries, key, None)
        if key.kind is EntryKind.QUEUE:
            self.heads.settings_changed(key.name)

    def add_callback(self, awaited: str, awaiter: str) -> None:
        edge = Edge(awaited, awaiter)
        if self._callbacks.get(edge) is not True:
            self._awaiters.setdefault(awaited, {})[awaiter] = None
            self._set("callbacks", self._callbacks, edge, True)

    def remove_callback(self, awaited: str, awaiter: str) -> None:
        self._set("callbacks", self._callbacks, Edge(awaited, awaiter), False)

    def add_listener(self, awaited: str, address: str) -> None:
        edge = Edge(awaited, address)
        if self._listeners.get(edge) is not True:
            self._addresses.setdefault(awaited, {})[address] = None
            self._set("listeners", self._listeners, edge, True)

    def remove_listener(self, awaited: str, address: str) -> None:
        self._set("listeners", self._listeners, Edge(awaited, address), False)

    def add_resume(self, task_id: str, awaited: str) -> None:
        edge = Edge(task_id, awaited)
        self._resumes_of.setdefault(task_id, {})[edge] = None
        self._set("resumes", self._resumes, edge, True)

    def clear_resumes(self, task_id: str) -> None:
        """Removes all of a task's resumes, stored ones and this batch's."""
        for edge in self._resumes_of.get(task_id, ()):
            if self._resumes.get(edge):
                self._set("resumes", self._resumes, edge, False)
        self._set("resumes_cleared", self._resumes_cleared, task_id, True)

    def add_release(self, task_id: str, promise_id: str, number: int) -> None:
        """The first number stays: a request that is asked again must not change the order."""
        edge = Edge(task_id, promise_id)
        if edge not in self._releases:
            self._releases_of.setdefault(task_id, {})[edge] = None
            self._set("releases", self._releases, edge, number)

    def put_undrained(self, id: str, *, undrained: bool) -> None:
        """Marks a settled promise that still has edges; they are loaded afresh for the next step."""
        self._set("undrained", self._undrained, id, undrained)

    def _set(self, name: str, table: dict[Any, Any], key: Any, value: Any) -> None:
        previous = table.get(key, _ABSENT)
        before = self._before.get(name)
        if before is None:
            self._before[name] = {key: previous}
        elif key not in before:
            before[key] = previous
        self._undo.append((name, key, previous))
        table[key] = value

    # -- undoing and handing over ----------------------------------------------------------

    def forget_events(self) -> None:
        """Whoever counts has seen them."""
        self.events.clear()
        self._events_kept = 0

    def mark(self) -> int:
        return len(self._undo)

    def keep(self) -> None:
        """The request at hand is done and will not be undone alone."""
        self._undo.clear()
        self.settled.clear()
        self.depth_moves.clear()
        self._canceled_before = self.canceled
        self._events_kept = len(self.events)
        self._left_before = self.left

    def rollback(self) -> None:
        """Undoes all that was written since the last `keep`."""
        for name, key, previous in reversed(self._undo):
            table = self._table(name)
            if previous is _ABSENT:
                del table[key]
            else:
                table[key] = previous
        self._undo.clear()
        self.settled.clear()
        self.depth_moves.clear()
        self.canceled = self._canceled_before
        del self.events[self._events_kept :]
        self.left = self._left_before
        self._moves = None
        self.heads.rewind()

    def _table(self, name: str) -> dict[Any, Any]:
        return getattr(self, "_messages" if name == "outbox" else f"_{name}")  # type: ignore[no-any-return]

    def changed_tasks(self) -> list[Task]:
        """The tasks that the batch wrote, as they are now."""
        ids = self._before.get("tasks", ())
        return [task for id in ids if (task := self._tasks.get(id)) is not None]

    def changed_entries(self) -> list[Entry]:
        """The entries that the batch wrote, as they are now."""
        keys = self._before.get("entries", ())
        return [entry for key in keys if (entry := self._entries.get(key)) is not None]

    def changes_since(self, mark: int) -> Changes:
        """What the step since `mark` did."""
        before: dict[str, dict[Any, Any]] = {}
        for name, key, previous in self._undo[mark:]:
            before.setdefault(name, {}).setdefault(key, previous)
        return self._collected(before)

    def changes(self) -> Changes:
        """What the whole batch did."""
        return self._collected(self._before)

    def _collected(self, before: dict[str, dict[Any, Any]]) -> Changes:
        """What differs from `before`, which holds what each table held under the keys written."""
        changes = Changes()
        removed = before.get("removed", ())
        for name, writes in before.items():
            table = self._table(name)
            written = {key: table[key] for key in writes if key in table}
            if name == "resumes_cleared":
                # Clearing again is a change again: resumes may have come in between.
                changes.resumes_cleared.update(written)
                continue
            changed = {key: v for key, v in written.items() if v is not writes[key]}
            if name == "removed":
                changed = set(changed)  # type: ignore[assignment]
            elif name in ("promises", "tasks"):
                # What is removed is told by `removed` alone, and may have been born again since.
                changed = {id: v for id, v in changed.items() if v is not None}
                born = {id for id in changed if writes[id] is None or id in removed}
                setattr(changes, f"born_{name}", born)
            elif name == "resumes":
                # What is gone, its clearing takes away already.
                changed = {edge: True for edge, present in changed.items() if present}
            setattr(changes, name, changed)
        return changes
