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
            return await self._until(waiter, request.wait, look, _has_tasks)
        finally:
            self._waiters.remove_claim(waiter)

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
            await waiter.alarm.wait(min(left, self._seconds_to_deadline(response)))

    def _seconds_to_deadline(self, response: Response) -> float:
        """Until a promise that nobody settles, because it is not external, is seen as settled."""
        if not isinstance(response.data, PromiseResult):
            return inf
        left = response.data.promise.timeout_at - self._runtime.now_ms()
        # One that has passed on this clock, and is still ahead on that of the store, is waited for.
        return left / 1_000 if left > 0 else inf


def _has_tasks(response: Response) -> bool:
    return not isinstance(response.data, ClaimResult) or bool(response.data.tasks)


def _is_settled(response: Response) -> bool:
    data = response.data
    return not isinstance(data, PromiseResult) or data.promise.state is not PromiseState.PENDING
