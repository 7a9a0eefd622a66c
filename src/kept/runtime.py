"""The seam to everything that is not deterministic: clock, entropy, timers, tasks, threads.

Engine, server, client, worker and SDK get a `Runtime` and touch none of these otherwise, so a
simulation can stand in for all of them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
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


def at_exit(work: Callable[[], object]) -> None:
    """Calls `work` when the program ends, while pools of threads still take work: what `atexit` has is
    called after their end."""
    register = getattr(threading, "_register_atexit", atexit.register)
    register(work)


class LoopThread:
    """An event loop in a thread of its own, for callers who have none."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does the work there, and waits for it here. Whoever interrupts the wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Ends the loop; what still runs there is cancelled."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):
            self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
