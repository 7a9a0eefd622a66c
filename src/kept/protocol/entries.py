"""Small records that are found by nothing but their kind and name (protocol B2 to B9).

The settings of a queue, a lock, a token bucket, the holder of a dedupe key: each is the data of an
`Entry`. Stores keep them all in one table, look into none, and find again what is due: so a new
kind is a structure here and a handler in the machine, and no store changes for it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from kept.protocol.records import PromiseState, Value


class EntryKind(StrEnum):
    """What an entry is. The value is stored, so it never changes."""

    QUEUE = "queue"
    TURN = "turn"
    QUEUE_RATE = "queue_rate"
    LANE_RATE = "lane_rate"
    DEPTH = "depth"
    LOCK = "lock"
    CANCEL = "cancel"
    MAILBOX = "mailbox"
    WORKER = "worker"
    FUNCTION = "function"
    ATTRIBUTES = "attributes"
    ATTRIBUTE = "attribute"
    MESSAGE_KEY = "message_key"
    DEDUPE = "dedupe"
    DEBOUNCE = "debounce"
    SINGLETON = "singleton"
    BULK = "bulk"
    SLOTS = "slots"
    BUCKET = "bucket"
    GUARD = "guard"
    SCHEDULE_LINE = "schedule_line"
    BACKFILL = "backfill"
    DELIVERIES = "deliveries"
    RETENTION = "retention"
    RETIRING = "retiring"
    KEPT_ID = "kept_id"


class EntryKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """What an entry is known by."""

    kind: EntryKind
    name: str


class EntryData(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """What every kind's data is."""


class RateLimit(EntryData, frozen=True):
    """At most `limit` starts in each period of `period` ms, periods aligned to the epoch."""

    limit: int
    period: int


class LaneLimits(EntryData, frozen=True):
    """What holds for each lane of a queue (B2). `weight`: turns that each lane gets in a round."""

    concurrency: int | None = None
    rate: RateLimit | None = None
    weight: int | None = None


class QueueSettings(EntryData, frozen=True):
    """What an operator said of a queue (B2). Times in ms. `lane` holds for each of its lanes, but
    for what `lanes` says of one by name."""

    concurrency: int | None = None
    rate: RateLimit | None = None
    lane: LaneLimits | None = None
    lanes: dict[str, LaneLimits] = {}
    max_depth: int | None = None
    aging: int | None = None
    paused: bool = False
    retention: int | None = None
    keep_ids: bool = False


class Turn(EntryData, frozen=True):
    """Whose turn it was last among a queue's lanes, and how many tasks it took in that turn."""

    lane: str
    taken: int


class Starts(EntryData, frozen=True):
    """How many tasks started in the period that began at `since` (ms)."""

    since: int
    count: int


class Depth(EntryData, frozen=True):
    """How many tasks of a queue wait. Counted only for a queue whose depth is limited."""

    waiting: int


class Waiter(EntryData, frozen=True):
    """One that waits in line for a lock or a slot (B5).

    It is there until `until` (ms) unless it says so again. From when its turn came until `turn`
    (ms) what is free is kept for it. `limit` is the slots' of which it wants one.
    """

    holder: str
    until: int
    turn: int | None = None
    limit: int = 1


class Lock(EntryData, frozen=True):
    """A lock (B5). `fence` rises with every grant and outlives the lease; `holder` is None while
    nobody has it. `request` is the id of the request that got the latest grant; `released` are the
    ids of the latest requests that gave one back."""

    fence: int
    holder: str | None = None
    ttl: int | None = None
    expires_at: int | None = None
    request: str | None = None
    released: tuple[str, ...] = ()
    waiters: tuple[Waiter, ...] = ()


class SlotLease(EntryData, frozen=True):
    """A slot that is held until `expires_at` (ms), or for `ttl` ms after each heartbeat."""

    holder: str
    ttl: int
    expires_at: int


class Slots(EntryData, frozen=True):
    """The slots of a key (B5) that are held, in order of their grants, and who waits."""

    leases: tuple[SlotLease, ...] = ()
    waiters: tuple[Waiter, ...] = ()


class Bucket(EntryData, frozen=True):
    """A token bucket (B5) as it was at `at` (ms). `level` counts in parts of a token, of which
    there are `period` to one, so that each ms adds exactly `limit` of them."""

    level: int
    at: int
    limit: int
    period: int
    burst: int


class Guard(EntryData, frozen=True):
    """The highest revision of an entity (B5). `request` is the id of the request that said so."""

    revision: int
    expires_at: int
    request: str | None = None


class CancelMode(StrEnum):
    """How work is canceled: it is asked to stop, or it is stopped."""

    REQUEST = "request"
    FORCE = "force"


class Cancellation(EntryData, frozen=True):
    """The cancellation of a promise (B3); its entry has the promise's id.

    It has spread to the children up to the id `after`; None: to all that there were. `heard`: the
    code, or whoever took the work, knows of it. `root` is the promise from which it spread here;
    at that one, `descendants` counts all that it reached and `open` those who still spread it.
    """

    mode: CancelMode
    requested_at: int
    reason: str | None = None
    recursive: bool = True
    after: str | None = None
    heard: bool = False
    root: str | None = None
    descendants: int = 0
    open: int = 0


class Attributes(EntryData, frozen=True):
    """What running work says of itself (B8); `progress` from 0 to 1."""

    attributes: dict[str, str] = {}
    progress: float | None = None


class Indexed(EntryData, frozen=True):
    """Nothing but the entry's name: an attribute's name and value, and the id of who has it."""


class AnnouncedFunction(EntryData, frozen=True):
    """A function that a worker runs (B9), and the queue in which its work waits."""

    name: str
    version: int
    queue: str
    schema: dict[str, Any] | None = None


class Announcement(EntryData, frozen=True):
    """What a worker says that it runs, until `expires_at` (ms) or `ttl` ms after a heartbeat."""

    queues: tuple[str, ...]
    functions: tuple[AnnouncedFunction, ...]
    ttl: int
    expires_at: int


class FunctionSeen(EntryData, frozen=True):
    """Whether anybody runs what jobs name (B9): it is announced until `announced_until` (ms), and
    since `missing_since` there have been jobs that nobody ran."""

    announced_until: int = 0
    missing_since: int | None = None


class Mailbox(EntryData, frozen=True):
    """A mailbox of a promise (B8): `sent` is the number of its latest message."""

    sent: int


class MessageKey(EntryData, frozen=True):
    """The number that the message of a key got (B8)."""

    number: int


class ScheduleLine(EntryData, frozen=True):
    """What a schedule that does not overlap itself fired last, and the instants that wait (B10)."""

    last: str
    waiting: tuple[int, ...] = ()


class Span(EntryData, frozen=True):
    """The instants (ms) from `since` on and before `until`."""

    since: int
    until: int


class Backfill(EntryData, frozen=True):
    """What of a schedule's past is still to be fired (B10)."""

    spans: tuple[Span, ...]


class Attempt(EntryData, frozen=True):
    """A try to deliver a webhook that ended at `at` (ms), after `took` ms. Without an `error` it was
    delivered; else `next_at` (ms) is the next try. The address is as it may be shown."""

    address: str
    number: int
    took: int
    error: str | None = None
    next_at: int | None = None
    at: int = 0


class Deliveries(EntryData, frozen=True):
    """The latest tries to deliver the webhooks of a promise, oldest first (A6)."""

    attempts: tuple[Attempt, ...]


class Retention(EntryData, frozen=True):
    """When a settled tree leaves (B6); its entry has the origin's id.

    Nothing keeps those of its promises that were born after `seen`, nor it. `leaving`: that holds
    for all of them, and they are being removed. `held_by`: one that kept the tree.
    """

    seen: str | None = None
    leaving: bool = False
    held_by: str | None = None


class Retiring(EntryData, frozen=True):
    """Roots that settled in one commit, and whose trees are looked at at one instant: a row for
    many of them. What then keeps one gets an entry of its own (`Retention`)."""

    roots: tuple[str, ...]


class KeptId(EntryData, frozen=True):
    """The verdict of a promise that has left; its entry has the promise's id (B6). `left_at` (ms):
    when it left."""

    state: PromiseState
    timeout_at: int
    created_at: int
    settled_at: int
    left_at: int


class KeyHolder(EntryData, frozen=True):
    """What every holder of a key says (B4): the id of the promise that has it."""

    promise: str


class Dedupe(KeyHolder, frozen=True):
    """Who holds a dedupe key: as long as its promise is unsettled, and until `until` (ms)."""

    fingerprint: str
    until: int


class Debounce(KeyHolder, frozen=True):
    """Whose start later creates put off, to `latest` (ms) at the latest where there is one. `first`
    (ms): when the first of them came."""

    first: int
    latest: int | None = None


class Singleton(KeyHolder, frozen=True):
    """The only unsettled promise of a singleton key."""


class LetterFilter(EntryData, frozen=True, forbid_unknown_fields=True):
    """Which dead letters: those for which all that is given holds. `since` (ms) is the first
    instant of their death, `until` past the last; `prefix` begins their ids. A misspelt field is
    refused: ignored, it would let a purge take everything."""

    queue: str | None = None
    function: str | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None
    prefix: str | None = None

    def wants(
        self, id: str, queue: str | None, function: str | None, reason: str, died_at: int
    ) -> bool:
        """Whether a dead letter is among them."""
        return (
            self.queue in (None, queue)
            and self.function in (None, function)
            and self.reason in (None, reason)
            and (self.since is None or died_at >= self.since)
            and (self.until is None or died_at < self.until)
            and (self.prefix is None or id.startswith(self.prefix))
        )


class BulkAction(StrEnum):
    """What is done with many dead letters."""

    REPLAY = "replay"
    PURGE = "purge"


class Bulk(EntryData, frozen=True):
    """An operation on the dead letters of a filter that had died when it began (B4). `cursor` is the
    last id that was looked at. With `dry_run` it counts, and does nothing."""

    action: BulkAction
    filter: LetterFilter
    started_at: int
    param: Value | None = None
    dry_run: bool = False
    cursor: str | None = None
    done: int = 0
    failed: int = 0
    finished_at: int | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A stored entry. At `due_at` (ms) the background looks at it; None: never."""

    key: EntryKey
    data: EntryData
    due_at: int | None = None


# The entries that say when trees are looked at: they are due apart from all others.
TREE_KINDS: Final = frozenset({EntryKind.RETENTION, EntryKind.RETIRING})

DATA_TYPES: Final[dict[EntryKind, type[EntryData]]] = {
    EntryKind.QUEUE: QueueSettings,
    EntryKind.TURN: Turn,
    EntryKind.QUEUE_RATE: Starts,
    EntryKind.LANE_RATE: Starts,
    EntryKind.DEPTH: Depth,
    EntryKind.LOCK: Lock,
    EntryKind.CANCEL: Cancellation,
    EntryKind.MAILBOX: Mailbox,
    EntryKind.WORKER: Announcement,
    EntryKind.FUNCTION: FunctionSeen,
    EntryKind.ATTRIBUTES: Attributes,
    EntryKind.ATTRIBUTE: Indexed,
    EntryKind.MESSAGE_KEY: MessageKey,
    EntryKind.DEDUPE: Dedupe,
    EntryKind.DEBOUNCE: Debounce,
    EntryKind.SINGLETON: Singleton,
    EntryKind.BULK: Bulk,
    EntryKind.SLOTS: Slots,
    EntryKind.BUCKET: Bucket,
    EntryKind.GUARD: Guard,
    EntryKind.SCHEDULE_LINE: ScheduleLine,
    EntryKind.BACKFILL: Backfill,
    EntryKind.DELIVERIES: Deliveries,
    EntryKind.RETENTION: Retention,
    EntryKind.RETIRING: Retiring,
    EntryKind.KEPT_ID: KeptId,
}

EncodedData: TypeAlias = str
_encode: Final = msgspec.json.Encoder().encode
_decoders: Final = {kind: msgspec.json.Decoder(type) for kind, type in DATA_TYPES.items()}


def encode_data(data: EntryData) -> EncodedData:
    """The form in which stores keep an entry's data: readable JSON."""
    return _encode(data).decode()


def decode_data(kind: EntryKind, text: EncodedData) -> EntryData:
    """The data that `encode_data` wrote."""
    return _decoders[kind].decode(text)
