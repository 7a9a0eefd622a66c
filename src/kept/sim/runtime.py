"""The `Runtime` of a simulated process: its clock, its entropy, and no thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, TypeVar

from kept.sim.loop import SimulatedLoop
from kept.sim.process import Process

T = TypeVar("T")

# The wall clock's reading (ms since the epoch) when virtual time is 0.
EPOCH_MS: Final = 1_800_000_000_000


class Clock:
    """A machine's clock: `offset_ms` off, `rate` seconds for each second that passes. A machine
    keeps it when its processes restart."""

    def __init__(self, loop: SimulatedLoop, offset_ms: int = 0, rate: float = 1.0) -> None:
        self._loop = loop
        self.offset_ms = offset_ms
        self.rate = rate

    def now_ms(self) -> int:
        return EPOCH_MS + self.offset_ms + int(self._loop.time() * self.rate * 1_000)

    def monotonic(self) -> float:
        return self._loop.time() * self.rate

    def jump(self, milliseconds: int) -> None:
        """Sets the wall clock forward, or back; the monotonic one runs on."""
        self.offset_ms += milliseconds


class SimulatedRuntime:
    """What a simulated process lives in."""

    def __init__(self, loop: SimulatedLoop, process: Process, clock: Clock, random: Random) -> None:
        self.process = process
        self.clock = clock
        self._loop = loop
        self._random = random

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def entropy(self, size: int) -> bytes:
        return self._random.randbytes(size)

    async def sleep(self, seconds: float) -> None:
        # Zero too goes round the loop, as asyncio's own sleep does.
        await self._loop.pause(seconds / self.clock.rate)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        return self._loop.create_task(work, name=name)

    async def run_blocking(self, work: Callable[[], T]) -> T:
        await self._loop.pause(0)
        return work()

    async def run_code(self, work: Callable[[], T]) -> T:
        await self._loop.pause(0)
        return work()


class OnlookersRuntime(SimulatedRuntime):
    """Of those who look on: what blocks does not even give way to others, so that everything that
    is read is of one moment."""

    async def run_blocking(self, work: Callable[[], T]) -> T:
        return work()
