"""Requests that wait: `task.claim` with `wait`, `promise.wait` (protocol B1, B2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

from kept.engine.waiters import Waiter, Waiters
from kept.protocol.records import PromiseState
from kept.protocol.requests import PromiseWait, TaskClaim
from kept.protocol.responses import ClaimResult, PromiseResult, Response
from kept.runtime import Runtime

Look = Callable[[], Awaitable[Response]]


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


def _is_settled(response: Response) -> bool:
    data = response.data
    return not isinstance(data, PromiseResult) or data.promise.state is not PromiseState.PENDING
