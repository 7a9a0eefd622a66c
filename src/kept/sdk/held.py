"""Locks and slots as `async with` blocks (protocol B5): a lease that is renewed while the block runs.

Where the lease ends first, because the engine says so or because no heartbeat was answered for a whole
ttl, the block's task is cancelled at once and the block raises `LockLostError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeAlias

from kept.client.connection import Connection
from kept.errors import (
    ConnectionFailedError,
    LockHeldError,
    LockLostError,
    RequestError,
    error_for,
)
from kept.protocol import guard_requests as g
from kept.protocol.limits import MAX_LOCK_WAIT_MS
from kept.protocol.requests import Request
from kept.protocol.responses import CONFLICT, LockGrant, LockResult, Response
from kept.runtime import Runtime

log = logging.getLogger("kept.lock")

Acquire: TypeAlias = g.LockAcquire | g.SlotAcquire
Opens: TypeAlias = Callable[[], tuple[Connection, Runtime]]
# So many heartbeats come in one ttl.
BEATS_PER_TTL: Final = 3
_SHORTEST_RETRY_SECONDS: Final = 0.05
_HOLDER_BYTES: Final = 16


class LockLease:
    """A lock or slot while it is held.

    `fence` is higher than that of every earlier holder of the lock: pass it on with each effect, and
    let the other side refuse what comes with a lower one. It is 0 for slots, which have none. `lost`
    is set as soon as the lease is known to be over.
    """

    def __init__(self, holder: str, fence: int) -> None:
        self.holder = holder
        self.fence = fence
        self.lost = asyncio.Event()


class Held:
    """What `async with` takes: acquires, renews in the background, releases. Each entry is an
    acquisition of its own, one at a time."""

    def __init__(self, key: str, opens: Opens, acquire: Acquire, wait_ms: int | None) -> None:
        self._key = key
        self._opens = opens
        self._acquire = acquire
        self._wait_ms = wait_ms
        self._ttl = acquire.ttl / 1_000
        self._lease: LockLease | None = None

    # -- the block -------------------------------------------------------------------------------

    async def __aenter__(self) -> LockLease:
        """Raises `LockHeldError` where it was not had in time."""
        if self._lease is not None:
            raise RuntimeError(f"{self._key!r} is held by this object already")
        self._connection, self._runtime = self._opens()
        holder = self._runtime.entropy(_HOLDER_BYTES).hex()
        try:
            self._lease = lease = await self._acquired(holder)
        except LockHeldError:
            raise
        except BaseException:
            # It may have been granted all the same, and would be held by nobody for its ttl.
            self._runtime.spawn(self._give_back(holder), "kept-lock-return")
            raise
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._why = ""
        self._renewing = self._runtime.spawn(self._renew(lease), "kept-lock-renewal")
        return lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        assert lease is not None
        self._renewing.cancel()
        if lease.lost.is_set():
            only_lost = await self._uncancelled(error)
        else:
            await self._released(lease)
            only_lost = lease.lost.is_set() and error is None
        if only_lost:
            raise LockLostError(self._key, f"{self._key!r}: {self._why}") from error

    async def _uncancelled(self, error: BaseException | None) -> bool:
        """Takes back the cancelling of the task; answers whether the loss is all that ended it."""
        if isinstance(error, asyncio.CancelledError):
            return self._task.uncancel() <= self._cancelling
        with contextlib.suppress(asyncio.CancelledError):
            # What was not delivered yet is delivered here.
            await self._runtime.sleep(0)
        self._task.uncancel()
        return error is None

    # -- acquiring -------------------------------------------------------------------------------

    async def _acquired(self, holder: str) -> LockLease:
        now = self._runtime.monotonic
        end = None if self._wait_ms is None else now() + self._wait_ms / 1_000
        while True:
            left_ms = MAX_LOCK_WAIT_MS if end is None else max(0, round((end - now()) * 1_000))
            wait = min(left_ms, MAX_LOCK_WAIT_MS)
            keep = end is None or left_ms > MAX_LOCK_WAIT_MS
            started = now()
            response = await self._connection.send(self._request(holder, wait, keep=keep))
            if response.ok:
                lease = LockLease(holder, _fence_of(response))
                self._confirmed_at = started
                # It is not known how much of a long wait was before the grant.
                if now() - started < self._ttl / BEATS_PER_TTL or await self._beat(lease):
                    return lease
            elif response.status != CONFLICT:
                raise error_for(response.status, str(response.data), response.detail)
            elif left_ms == 0 or (end is not None and now() >= end):
                raise _held_error(self._key, response)

    def _request(self, holder: str, wait: int, *, keep: bool) -> Acquire:
        asked = self._acquire
        if isinstance(asked, g.LockAcquire):
            return g.LockAcquire(asked.resource, holder, asked.ttl, wait, keep)
        return g.SlotAcquire(asked.key, asked.limit, holder, asked.ttl, wait, keep)

    async def _give_back(self, holder: str) -> None:
        try:
            if isinstance(self._acquire, g.SlotAcquire):
                await self._connection.send(g.SlotRelease(self._key, holder))
                return
            found = (await self._connection.send(g.LockGet(self._key))).data
            if isinstance(found, LockResult) and found.lock.holder == holder:
                release = g.LockRelease(self._key, holder, found.lock.fence)
                await self._connection.send(release)
        except ConnectionFailedError as error:
            log.info("%s: not given back, its lease will lapse: %s", self._key, error)

    # -- holding ---------------------------------------------------------------------------------

    async def _renew(self, lease: LockLease) -> None:
        pause = self._ttl / BEATS_PER_TTL
        while True:
            await self._runtime.sleep(pause)
            try:
                async with asyncio.timeout(self._left()):
                    if not await self._beat(lease):
                        self._lose(lease, "the engine says that it is no longer held")
                        return
                pause = self._ttl / BEATS_PER_TTL
            except (TimeoutError, ConnectionFailedError, RequestError) as error:
                log.warning("%s: a heartbeat failed: %s", self._key, error)
                pause = max(_SHORTEST_RETRY_SECONDS, min(pause, self._left()) / BEATS_PER_TTL)
            if self._left() <= 0:
                self._lose(lease, "no heartbeat was answered for its ttl")
                return

    def _left(self) -> float:
        """Seconds for which it is sure to be held."""
        return self._confirmed_at + self._ttl - self._runtime.monotonic()

    async def _beat(self, lease: LockLease) -> bool:
        """Whether it is held still. Raises `RequestError` where that is not known."""
        started = self._runtime.monotonic()
        beat: Request = g.SlotHeartbeat(self._key, lease.holder)
        if isinstance(self._acquire, g.LockAcquire):
            beat = g.LockHeartbeat(self._key, lease.holder, lease.fence)
        response = await self._connection.send(beat)
        if response.status == CONFLICT:
            return False
        if not response.ok:
            raise error_for(response.status, str(response.data))
        self._confirmed_at = started
        return True

    def _lose(self, lease: LockLease, why: str) -> None:
        log.warning("%s is lost: %s", self._key, why)
        self._why = why
        lease.lost.set()
        self._task.cancel()

    async def _released(self, lease: LockLease) -> None:
        release: Request = g.SlotRelease(self._key, lease.holder)
        if isinstance(self._acquire, g.LockAcquire):
            release = g.LockRelease(self._key, lease.holder, lease.fence)
        try:
            response = await self._connection.send(release)
        except ConnectionFailedError as error:
            log.warning("%s: not released, its lease will lapse: %s", self._key, error)
            return
        except asyncio.CancelledError:
            self._runtime.spawn(self._give_back(lease.holder), "kept-lock-return")
            raise
        if response.status == CONFLICT:
            self._why = "its lease had ended before the block did"
            lease.lost.set()


def _fence_of(response: Response) -> int:
    return response.data.fence if isinstance(response.data, LockGrant) else 0


def _held_error(key: str, response: Response) -> LockHeldError:
    detail = response.detail or {}
    holder, expires_at = detail.get("holder"), detail.get("expiresAt")
    return LockHeldError(
        key,
        str(response.data),
        holder if isinstance(holder, str) else None,
        expires_at if isinstance(expires_at, int) else None,
    )
