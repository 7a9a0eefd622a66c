"""The seam to everything that is not deterministic: clock, entropy, timers, tasks, threads.

Engine, server, client, worker and SDK get a `Runtime` and touch none of these otherwise, so a
simulation can stand in for all of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Runtime(Protocol):
    """What a world offers to those who live in it."""

    def now_ms(self) -> int:
        """The wall clock in milliseconds since the epoch; it may jump."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, for measuring and timeouts."""

    def entropy(self, size: int) -> bytes:
        """`size` unpredictable bytes."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Waits."""

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Runs `work` beside the caller; whoever spawns it must keep and end it."""

    def run_blocking(self, work: Callable[[], T]) -> Awaitable[T]:
        """Runs a short blocking call of our own, such as a commit, without blocking the loop."""

    def run_code(self, work: Callable[[], T]) -> Awaitable[T]:
        """Runs a blocking function of the user, for as long as it likes; never delays
        `run_blocking`."""


def wall_clock_ms() -> int:
    """The machine's clock in milliseconds since the epoch, for whoever has no runtime."""
    return time.time_ns() // 1_000_000


class SystemRuntime:
    """The real world: the machine's clock and entropy, asyncio's tasks, two pools of threads."""

    def __init__(self, blocking_threads: int = 4, code_threads: int = 32) -> None:
        self._threads = ThreadPoolExecutor(blocking_threads, thread_name_prefix="kept")
        self._code_threads = ThreadPoolExecutor(code_threads, thread_name_prefix="kept-code")

    def now_ms(self) -> int:
        return wall_clock_ms()

    def monotonic(self) -> float:
        return time.monotonic()

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        return asyncio.get_running_loop().create_task(work, name=name)

    async def run_blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def run_code(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._code_threads, work)
