"""A runtime whose clock a test moves."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Enough turns of the loop for everything that is ready to have run.
SETTLING_TURNS = 20


class ManualRuntime:
    """Time stands still until `advance`."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        return int(self.time * 1_000)

    def monotonic(self) -> float:
        return self.time

    def entropy(self, size: int) -> bytes:
        return b"\x80" * size

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.time + seconds, self._count, future))
        await future

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def run_blocking(self, work: Callable[[], T]) -> Awaitable[T]:
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Moves the clock, waking each sleeper at its instant."""
        end = self.time + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.time, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await settle()
        self.time = end
        await settle()


async def settle() -> None:
    """Lets everything run that is ready."""
    for _ in range(SETTLING_TURNS):
        await asyncio.sleep(0)
