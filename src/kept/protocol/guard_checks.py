"""The field checks of locks, slots, buckets and guards (protocol B5) that types cannot express."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kept.protocol import guard_requests as g
from kept.protocol.limits import MAX_HOLDER_BYTES
from kept.protocol.requests import Request
from kept.protocol.texts import id_problem, text_size


def _lock(
    request: g.LockAcquire | g.LockHeartbeat | g.LockRelease, _: frozenset[str]
) -> str | None:
    return id_problem(request.resource, "resource") or _holder_problem(request.holder)


def _slot(
    request: g.SlotAcquire | g.SlotHeartbeat | g.SlotRelease, _: frozenset[str]
) -> str | None:
    return id_problem(request.key, "key") or _holder_problem(request.holder)


def _holder_problem(holder: str) -> str | None:
    return id_problem(holder, "holder", MAX_HOLDER_BYTES)


def _resource_only(request: g.LockGet, _: frozenset[str]) -> str | None:
    return id_problem(request.resource, "resource")


def _key_only(request: Any, _: frozenset[str]) -> str | None:
    return id_problem(request.key, "key")


def _bucket(request: g.BucketTake, _: frozenset[str]) -> str | None:
    burst = request.limit if request.burst is None else request.burst
    if request.cost > burst:
        return f"cost: {request.cost} tokens are never there, the bucket holds {burst}"
    return id_problem(request.key, "key")


def _search(request: g.LockSearch | g.GuardSearch, _: frozenset[str]) -> str | None:
    if request.cursor is not None and text_size(request.cursor) < 0:
        return "cursor: is not one that a search answered"
    if request.prefix is not None and text_size(request.prefix) < 0:
        return "prefix: must be valid Unicode text without NUL characters"
    return None


GUARD_CHECKS: Final[dict[type[Request], Callable[[Any, frozenset[str]], str | None]]] = {
    g.LockAcquire: _lock,
    g.LockHeartbeat: _lock,
    g.LockRelease: _lock,
    g.LockGet: _resource_only,
    g.LockSearch: _search,
    g.SlotAcquire: _slot,
    g.SlotHeartbeat: _slot,
    g.SlotRelease: _slot,
    g.SlotGet: _key_only,
    g.BucketTake: _bucket,
    g.GuardAdvance: _key_only,
    g.GuardGet: _key_only,
    g.GuardSearch: _search,
    g.GuardDelete: _key_only,
}
