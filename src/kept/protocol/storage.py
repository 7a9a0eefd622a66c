"""What the machine asks of a store and hands back to it: keys in, records out, changes in.

`Reads` names what a batch needs, `Loaded` is what a store found, `Changes` is what one step, or a
whole batch, did. Stores and observers see these and nothing else; no rule lives here.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import msgspec

from kept.protocol.entries import Entry, EntryKey, EntryKind
from kept.protocol.records import (
    DeadLetter,
    MessageKey,
    OutboxEntry,
    Promise,
    PromiseState,
    ScheduleRecord,
    Task,
)

DEFAULT_TENANT = "default"

# Cursors of a task's preload: the id of the last promise given, and whether it was a released one.
RELEASED_CURSOR: Final = "r:"
OTHERS_CURSOR: Final = "o:"


class Edge(NamedTuple):
    """A callback (awaited, awaiting task), a listener (awaited, address), a resume (task, awaited)
    or a release (task, promise)."""

    of: str
    to: str


class Head(NamedTuple):
    """The front of a queue: its due tasks in order of rank, of these functions only where given."""

    queue: str
    functions: tuple[str, ...] | None = None


class LaneSpan(NamedTuple):
    """Lanes to be named: the first `size` of those that have ready tasks, in the order of their names
    from `start` on and round to it again."""

    start: str
    size: int


class LaneHead(NamedTuple):
    """The front of one lane of a head: its first ready tasks by rank."""

    head: Head
    lane: str


class ChildPage(NamedTuple):
    """At most `limit` pending children of a promise, by id, beyond `after`."""

    parent: str
    after: str
    limit: int


class PendingChildren(NamedTuple):
    """Their ids, and where to go on; None where that was all. A page may hold fewer than `limit`,
    even none, and still not be the last: a store looks at MAX_CHILDREN_WALKED children at most."""

    ids: list[str]
    more: str | None = None


class TreePage(NamedTuple):
    """At most `limit` promises of an origin, the youngest first and the origin's own last, born
    before `before`; all where that one is not there."""

    origin: str
    before: str | None
    limit: int


class Member(NamedTuple):
    """What is known of a promise of a tree without its payloads. `version` is its task's. `named`:
    an edge from or to it, a message or a dead letter names it. `parent_pending` (as stored): of its
    tags' parent or branch."""

    id: str
    state: PromiseState
    timeout_at: int
    created_at: int
    settled_at: int | None
    tags: dict[str, str]
    version: int | None
    named: bool
    parent_pending: bool


class Members(NamedTuple):
    """A page of a tree, and whether there are more."""

    members: list[Member]
    more: bool


class EntryPrefix(NamedTuple):
    """Entries of a kind whose names begin alike, at most `limit` of them."""

    kind: EntryKind
    prefix: str
    limit: int


class Slots(NamedTuple):
    """What is held of a queue, or of one of its lanes."""

    queue: str
    lane: str | None = None


class Reads(msgspec.Struct):
    """The keys that a batch needs next. `objects` are promises with their tasks, by id."""

    objects: set[str] = set()
    # Settled promises' callbacks and listeners, at most MAX_EDGES_PER_STEP of each.
    edges: set[str] = set()
    # The first page of a task's preload: its children, released ones first (A4).
    children: set[str] = set()
    # Children by their tag `resonate:parent` that are pending (as stored).
    pending_children: set[ChildPage] = set()
    # How many due tasks of each head.
    heads: dict[Head, int] = {}
    # Lanes of heads that have several, by name.
    lanes: dict[Head, LaneSpan] = {}
    # How many ready tasks of each of these lanes.
    fronts: dict[LaneHead, int] = {}
    # Of which queues and lanes to count the tasks that are acquired.
    slots: set[Slots] = set()
    # Queues whose waiting (pending) tasks are to be counted.
    depths: set[str] = set()
    # Whether the tasks found at heads are to be preloaded: their children are needed next.
    head_children: bool = False
    schedules: set[str] = set()
    messages: set[MessageKey] = set()
    dead_letters: set[str] = set()
    entries: set[EntryKey] = set()
    # Entries by the beginning of their names.
    entry_prefixes: set[EntryPrefix] = set()
    # Promises by their origin.
    trees: set[TreePage] = set()
    # Tasks whose last request had one of these ids: a claim that is asked again (B1).
    requests: set[str] = set()

    def __bool__(self) -> bool:
        return bool(
            self.objects
            or self.edges
            or self.children
            or self.pending_children
            or self.heads
            or self.lanes
            or self.fronts
            or self.slots
            or self.depths
            or self.schedules
            or self.messages
            or self.dead_letters
            or self.entries
            or self.entry_prefixes
            or self.trees
            or self.requests
        )


class Children(msgspec.Struct):
    """A page of a task's preload: `released` in their order first, then `others` by id, each
    promise once. `more` is the cursor of the next page, as the store reads it."""

    released: list[Promise] = []
    others: list[Promise] = []
    more: str | None = None


class Letters(msgspec.Struct):
    """Dead letters that match, by id. `after`: the last that was looked at, where there may be more
    beyond it."""

    letters: list[DeadLetter]
    after: str | None = None


class Loaded(msgspec.Struct):
    """What the store holds under the keys of some `Reads`; None where there is nothing.

    The objects of heads, fronts, children (pending ones too) and requests are among `promises` and
    `tasks` too.
    """

    promises: dict[str, Promise | None] = {}
    tasks: dict[str, Task | None] = {}
    callbacks: dict[str, list[str]] = {}
    listeners: dict[str, list[str]] = {}
    # Promises with more edges than one step may drain.
    more_edges: set[str] = set()
    children: dict[str, Children] = {}
    pending_children: dict[ChildPage, PendingChildren] = {}
    # Task ids, ready ones by rank, then delayed ones that are due by now; none of a head in `laned`.
    heads: dict[Head, list[str]] = {}
    # Heads whose ready tasks are in more than one lane.
    laned: set[Head] = set()
    lanes: dict[Head, list[str]] = {}
    # Task ids, ready ones by rank.
    fronts: dict[LaneHead, list[str]] = {}
    slots: dict[Slots, int] = {}
    depths: dict[str, int] = {}
    schedules: dict[str, ScheduleRecord | None] = {}
    messages: dict[MessageKey, OutboxEntry | None] = {}
    dead_letters: dict[str, DeadLetter | None] = {}
    entries: dict[EntryKey, Entry | None] = {}
    entry_prefixes: dict[EntryPrefix, list[EntryKey]] = {}
    trees: dict[TreePage, Members] = {}
    requests: dict[str, list[str]] = {}


class Changes(msgspec.Struct):
    """New contents by key; None means removed. Nothing here says why.

    A promise or task whose id is in `born_promises` or `born_tasks` is new; all others replace a
    stored one. Edges map to True (present) or False (absent); writing one that is so already is
    harmless. All resumes of the tasks in `resumes_cleared` go before those in `resumes` come.
    `removed` promises go first of all, each with its task, its payloads, and the releases, edges and
    marks of either.
    """

    promises: dict[str, Promise] = {}
    tasks: dict[str, Task] = {}
    born_promises: set[str] = set()
    born_tasks: set[str] = set()
    callbacks: dict[Edge, bool] = {}
    listeners: dict[Edge, bool] = {}
    resumes_cleared: set[str] = set()
    resumes: dict[Edge, bool] = {}
    # The number that a promise's release got from its task; one that it has already stays.
    releases: dict[Edge, int] = {}
    # Settled promises whose edges were too many for one commit (True), or are drained now (False).
    undrained: dict[str, bool] = {}
    schedules: dict[str, ScheduleRecord | None] = {}
    outbox: dict[MessageKey, OutboxEntry | None] = {}
    dead_letters: dict[str, DeadLetter | None] = {}
    entries: dict[EntryKey, Entry | None] = {}
    removed: set[str] = set()
    # Set by debug.reset only: everything of the tenant goes first.
    reset: bool = False

    def __bool__(self) -> bool:
        return self != _NO_CHANGES


_NO_CHANGES: Final = Changes()


class QueueCounts(msgspec.Struct):
    """How many tasks of a queue are in which state. `oldest_due_at` (ms): when the first of those
    in line became due."""

    due: int = 0
    delayed: int = 0
    acquired: int = 0
    suspended: int = 0
    halted: int = 0
    dead: int = 0
    oldest_due_at: int | None = None


class Holder(NamedTuple):
    """Who holds a task, until `expires_at` (ms)."""

    id: str
    pid: str
    expires_at: int


class Awaited(NamedTuple):
    """Ids of promises that a task awaits. Not `complete`: there may be more, since a store looks
    at MAX_CALLBACKS_WALKED callbacks at most."""

    ids: list[str]
    complete: bool


class Key(NamedTuple):
    """A record of a tenant."""

    tenant: str
    id: str


class DueEntry(NamedTuple):
    """An entry of a tenant."""

    tenant: str
    key: EntryKey


class Due(msgspec.Struct):
    """What the background has to do at an instant, each list oldest first and bounded."""

    deadlines: list[Key] = []
    leases: list[Key] = []
    # Pending pushed tasks to be dispatched.
    retries: list[Key] = []
    # Pending pulled tasks, delayed until now, to be marked ready.
    ready: list[Key] = []
    schedules: list[Key] = []
    # Settled promises with edges still to be drained.
    drains: list[Key] = []
    # Entries at which the background has to look, but for those of trees.
    entries: list[DueEntry] = []
    # Those of trees: settled ones that may leave.
    trees: list[DueEntry] = []

    def __bool__(self) -> bool:
        return any(getattr(self, field) for field in self.__struct_fields__)


class Notice(msgspec.Struct):
    """What a commit means to other processes on the same store: who should look again."""

    # Queues ("tenant", "name") in which a task became due.
    queues: set[tuple[str, str]] = set()
    # Queues in which a task gave its slot back: whoever a limit keeps from claiming looks again.
    freed: set[tuple[str, str]] = set()
    # Promises ("tenant", "id") that settled.
    settled: set[tuple[str, str]] = set()
    # The earliest instant (ms) at which something is due that was not before.
    due_at: int | None = None
    # Messages were put into the outbox.
    messages: bool = False
    # Those whose turn it is for a lock or a slot: "tenant", kind and name of the entry, "holder".
    turns: set[tuple[str, str, str, str]] = set()
    # It is not known what was committed: look at all of the above.
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.queues
            or self.freed
            or self.settled
            or self.turns
            or self.due_at is not None
            or self.messages
            or self.everything
        )


class Dump(msgspec.Struct):
    """Everything a tenant has: for debug.snap and for the checks of tests."""

    promises: dict[str, Promise] = {}
    tasks: dict[str, Task] = {}
    callbacks: set[Edge] = set()
    listeners: set[Edge] = set()
    resumes: set[Edge] = set()
    releases: dict[Edge, int] = {}
    schedules: dict[str, ScheduleRecord] = {}
    outbox: dict[MessageKey, OutboxEntry] = {}
    dead_letters: dict[str, DeadLetter] = {}
    entries: dict[EntryKey, Entry] = {}


class StepObserver(Protocol):
    """Sees every machine step as it happens: the hook on which the property checks stand.

    `mark` and `rollback` bracket what may be undone: a request that raises, a commit that fails.
    An observer that raises from `step` undoes the request whose step it was.
    """

    def step(
        self,
        tenant: str,
        now: int,
        name: str,
        internal: bool,  # noqa: FBT001 - whoever calls it passes all five in order
        changes: Changes,
    ) -> None:
        """One step was taken: `changes` holds what it changed, `internal` that nobody asked."""

    def mark(self) -> int:
        """A point to go back to."""

    def rollback(self, mark: int) -> None:
        """All steps since `mark` did not happen."""
