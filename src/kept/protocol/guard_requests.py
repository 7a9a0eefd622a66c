"""The requests of locks, slots, token buckets and revision guards (protocol B5)."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from msgspec import Meta

from kept.protocol.limits import (
    MAX_BUCKET_PERIOD_MS,
    MAX_BUCKET_TOKENS,
    MAX_GUARD_RETENTION_MS,
    MAX_LOCK_TTL_MS,
    MAX_LOCK_WAIT_MS,
    MAX_SLOTS,
)
from kept.protocol.requests import Id, Name, Request, Rows, Version

LockTtl: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_LOCK_TTL_MS)]
LockWait: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_LOCK_WAIT_MS)]
Tokens: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_BUCKET_TOKENS)]


class LockAcquire(Request):
    """The lock for `ttl` ms, waiting in line up to `wait` ms for it. With `keep`, the place in line
    stays for a while after the wait, for when it is asked again."""

    kind: ClassVar[str] = "lock.acquire"
    resource: Id
    holder: Name
    ttl: LockTtl
    wait: LockWait = 0
    keep: bool = False


class LockHeartbeat(Request):
    """Holds the lock for its ttl from now on."""

    kind: ClassVar[str] = "lock.heartbeat"
    resource: Id
    holder: Name
    fence: Version


class LockRelease(Request):
    kind: ClassVar[str] = "lock.release"
    resource: Id
    holder: Name
    fence: Version


class LockGet(Request):
    kind: ClassVar[str] = "lock.get"
    resource: Id


class LockSearch(Request):
    """Locks by resource, those only whose resource starts with `prefix`."""

    kind: ClassVar[str] = "lock.search"
    prefix: str | None = None
    limit: Rows | None = None
    cursor: str | None = None


class SlotAcquire(Request):
    """One of `limit` slots for `ttl` ms, waiting in line as for a lock."""

    kind: ClassVar[str] = "slot.acquire"
    key: Id
    limit: Annotated[int, Meta(ge=1, le=MAX_SLOTS)]
    holder: Name
    ttl: LockTtl
    wait: LockWait = 0
    keep: bool = False


class SlotHeartbeat(Request):
    """Holds the slot for its ttl from now on."""

    kind: ClassVar[str] = "slot.heartbeat"
    key: Id
    holder: Name


class SlotRelease(Request):
    kind: ClassVar[str] = "slot.release"
    key: Id
    holder: Name


class SlotGet(Request):
    kind: ClassVar[str] = "slot.get"
    key: Id


class BucketTake(Request):
    """`cost` tokens of a bucket that gains `limit` in each `period` ms and holds at most `burst`
    (default: `limit`)."""

    kind: ClassVar[str] = "bucket.take"
    key: Id
    limit: Tokens
    period: Annotated[int, Meta(ge=1, le=MAX_BUCKET_PERIOD_MS)]
    cost: Tokens = 1
    burst: Tokens | None = None


class GuardAdvance(Request):
    """Notes that an entity is at `revision`; it is forgotten `retention` ms later."""

    kind: ClassVar[str] = "guard.advance"
    key: Id
    revision: Version
    retention: Annotated[int, Meta(ge=1, le=MAX_GUARD_RETENTION_MS)] | None = None


class GuardGet(Request):
    kind: ClassVar[str] = "guard.get"
    key: Id


class GuardSearch(Request):
    """Guards by key, those only whose key starts with `prefix`."""

    kind: ClassVar[str] = "guard.search"
    prefix: str | None = None
    limit: Rows | None = None
    cursor: str | None = None


class GuardDelete(Request):
    kind: ClassVar[str] = "guard.delete"
    key: Id


GUARD_REQUESTS: tuple[type[Request], ...] = (
    LockAcquire,
    LockHeartbeat,
    LockRelease,
    LockGet,
    LockSearch,
    SlotAcquire,
    SlotHeartbeat,
    SlotRelease,
    SlotGet,
    BucketTake,
    GuardAdvance,
    GuardGet,
    GuardSearch,
    GuardDelete,
)
