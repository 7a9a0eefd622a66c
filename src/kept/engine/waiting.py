"""Requests that wait: `task.claim`, `lock.acquire`, `slot.acquire` with `wait`, `promise.wait`
(protocol B1, B2, B5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from msgspec.structs import replace

from kept.engine.committer import Item
from kept.engine.waiters import LineRequest, Place, Waiter, Waiters
from kept.protocol.entries import EntryKey, EntryKind
from kept.protocol.guard_requests import LockAcquire, SlotAcquire
from kept.protocol.records import PromiseState
from kept.protocol.requests import PromiseWait, TaskClaim
from kept.protocol.responses import (
    UNAVAILABLE,
    ClaimResult,
    PromiseResult,
    Response,
)
from kept.runtime import Runtime

Look = Callable[[], Awaitable[Response]]
# Far below PRESENCE_MS, so that whoever waits keeps its place.
_PRESENT_AGAIN_SECONDS: Final = 5.0


class Waiting:
    """Looks, waits to be woken, and looks again, until there is an answer or the time is over."""

    def __init__(self, waiters: Waiters, runtime: Runtime, stopping: Callable[[], bool]) -> None:
        self._waiters = waiters
        self._runtime = runtime
        self._stopping = stopping

    async def claim(self, request: TaskClaim, tenant: str, look: Look) -> Response:
        """The first non-empty claim; empty after `wait` ms."""
        waiter = self._waiters.add_claim(tenant, request.queues, request.functions)
        try:
            return await self._until(waiter, request.wait, look, self._claimed(tenant))
        finally:
            self._waiters.remove_claim(waiter)

    def _claimed(self, tenant: str) -> Callable[[Response], bool]:
        """Whether a claim got tasks. One that a limit kept from them is woken by its end."""

        def done(response: Response) -> bool:
            data = response.data
            if not isinstance(data, ClaimResult):
                return True
            if data.limited and not data.tasks:
                self._waiters.note_limited((tenant, each.queue) for each in data.limited)
            return bool(data.tasks)

        return done

    async def promise(self, request: PromiseWait, tenant: str, look: Look) -> Response:
        """The settled promise; the pending one after `timeout` ms."""
        waiter = self._waiters.add_wait(tenant, request.id)
        try:
            return await self._until(waiter, request.timeout, look, _is_settled)
        finally:
            self._waiters.remove_wait(waiter)

    async def line(
        self,
        item: Item,
        look: Callable[[LineRequest], Awaitable[Response]],
        leave: Callable[[EntryKey, str], None],
    ) -> Response:
        """The grant that `item` asks for; the 409 after its `wait` ms. `leave` gives up a place
        whose caller is gone."""
        request = item.work
        assert isinstance(request, LockAcquire | SlotAcquire)
        key = line_key(request)
        turn = (item.tenant, key.kind.value, key.name, request.holder)
        place = Place(turn, request, item.request_id, item.fixed_now)
        self._waiters.add_place(place)
        given_up = True
        try:
            response = await self._in_line(place, request, look)
            given_up = False
            return response
        finally:
            is_last = self._waiters.remove_place(place)
            if given_up and is_last:
                leave(key, request.holder)

    async def _in_line(
        self,
        place: Place,
        request: LineRequest,
        look: Callable[[LineRequest], Awaitable[Response]],
    ) -> Response:
        end = self._runtime.monotonic() + request.wait / 1_000
        while True:
            left = end - self._runtime.monotonic()
            # A last look that waits for nothing gives up the place in line.
            stays = left > 0 or request.keep
            response = await look(request if stays else replace(request, wait=0))
            if left <= 0 or not _is_in_line(response):
                return response
            if self._stopping():
                # Its place stays for a while, for when it asks again elsewhere.
                return Response(UNAVAILABLE, "the engine is stopping; ask again")
            left = end - self._runtime.monotonic()
            await place.alarm.wait(min(left, _PRESENT_AGAIN_SECONDS))
            if place.answer is not None:
                return place.answer

    async def _until(
        self, waiter: Waiter, wait_ms: int, look: Look, done: Callable[[Response], bool]
    ) -> Response:
        end = self._runtime.monotonic() + wait_ms / 1_000
        while True:
            waiter.look()
            response = await look()
            if done(response):
                return response
            waiter.found_nothing()
            left = end - self._runtime.monotonic()
            if left <= 0 or self._stopping():
                return response
            await waiter.alarm.wait(min(left, self._seconds_to_news(response)))

    def _seconds_to_news(self, response: Response) -> float:
        """Until time alone changes the answer: a promise that nobody settles, because it is not
        external, is seen as settled; a period begins in which a queue may start more."""
        instants: list[int] = []
        if isinstance(response.data, PromiseResult):
            instants.append(response.data.promise.timeout_at)
        elif isinstance(response.data, ClaimResult):
            limited = response.data.limited or ()
            instants += [each.retry_at for each in limited if each.retry_at is not None]
        now = self._runtime.now_ms()
        # One that has passed on this clock, and is still ahead on that of the store, is waited for.
        return min(((at - now) / 1_000 for at in instants if at > now), default=inf)


def _is_in_line(response: Response) -> bool:
    """Whether it was refused for now, with a place in line."""
    return response.detail is not None and "place" in response.detail


def line_key(request: LineRequest) -> EntryKey:
    """The entry in which a request has its place in line."""
    if isinstance(request, LockAcquire):
        return EntryKey(EntryKind.LOCK, request.resource)
    return EntryKey(EntryKind.SLOTS, request.key)


def _is_settled(response: Response) -> bool:
    data = response.data
    return not isinstance(data, PromiseResult) or data.promise.state is not PromiseState.PENDING
