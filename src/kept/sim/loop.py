"""An asyncio event loop on which time is a number and the order of callbacks a draw.

There is no selector and no thread. While anything is ready, time stands still; when nothing is, it
moves to the next timer. Which process goes next is drawn from the seed; within a process callbacks
run in the order in which they were scheduled, as asyncio promises, unless `shuffled`.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events, events
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from random import Random
from typing import Any, Final, TypeAlias

from kept.sim.process import Process, owner_of

# Callbacks at one instant. More means that something spins: time would never move on.
MAX_CALLBACKS_PER_INSTANT: Final = 500_000
MAX_CALLBACKS: Final = 50_000_000
# Time always passes between setting a timer and its end: code that waits for the rest of a span, and
# finds that a trillionth of a second is left, would spin otherwise.
SHORTEST_WAIT_SECONDS: Final = 1e-6
# Timers that were cancelled leave the heap when they are this many, and half of it.
MIN_CANCELLED_TIMERS: Final = 200

ErrorContext: TypeAlias = dict[str, Any]


class SimulationStuckError(Exception):
    """Nothing will ever happen again, or the same instant never ends."""


class SimulatedLoop(base_events.BaseEventLoop):
    """Virtual time in seconds from 0. `random` draws the order; `kernel` is what belongs to none
    of the simulated processes: network, disks and the director of the play."""

    def __init__(self, random: Random, kernel: Process, *, shuffled: bool = False) -> None:
        super().__init__()
        self.set_debug(False)
        self.kernel = kernel
        self.callbacks = 0
        self.errors: list[ErrorContext] = []
        # Called after each callback with the process whose it was.
        self.after_callback: Callable[[Process], None] | None = None
        self._random = random
        self._shuffled = shuffled
        self._now = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._cancelled_timers = 0
        self._processes: list[Process] = [kernel]
        self._at_this_instant = 0
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._now

    def add_process(self, process: Process) -> None:
        """Gives a process its turns from now on."""
        self._processes.append(process)

    def remove_process(self, process: Process) -> None:
        """Takes a dead process out of the draw."""
        self._processes.remove(process)

    def pause(self, seconds: float) -> asyncio.Future[None]:
        """Done after virtual seconds."""
        future: asyncio.Future[None] = self.create_future()
        timer = self.call_later(max(seconds, 0.0), _wake, future)
        future.add_done_callback(lambda _: timer.cancel())
        return future

    # -- scheduling

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = events.Handle(callback, args, self, context or copy_context())
        self._enqueue(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = max(when, self._now + SHORTEST_WAIT_SECONDS)
        timer = events.TimerHandle(when, callback, args, self, context or copy_context())
        heapq.heappush(self._timers, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def create_task(  # type: ignore[override]
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        context = context or copy_context()
        owner = self._owner(context)
        if not owner.alive:
            coro.close()
            coro = _nothing()
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        if owner.alive:
            owner.adopt(task)
        else:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coro.close()
        return task

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > max(MIN_CANCELLED_TIMERS, len(self._timers) // 2):
            self._timers = [timer for timer in self._timers if not timer.cancelled()]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def _owner(self, context: Context) -> Process:
        return owner_of(context) or self.kernel

    def _enqueue(self, handle: asyncio.Handle) -> None:
        owner = self._owner(handle._context)  # type: ignore[attr-defined]
        if owner.alive:
            owner.ready.append(handle)

    # -- running

    def _run_once(self) -> None:
        owner = self._next_owner()
        ready = owner.ready
        if self._shuffled and len(ready) > 1 and owner is not self.kernel:
            ready.rotate(-self._random.randrange(len(ready)))
        handle = ready.popleft()
        if handle.cancelled():
            return
        self._count()
        handle._run()
        if self.after_callback is not None:
            self.after_callback(owner)

    def _next_owner(self) -> Process:
        """Who goes next; where nobody can, time moves on."""
        while True:
            now = self._now
            runnable = [p for p in self._processes if p.ready and p.stalled_until <= now]
            if runnable:
                return runnable[0] if len(runnable) == 1 else self._random.choice(runnable)
            self._advance()

    def _advance(self) -> None:
        timers = self._timers
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        instants = [p.stalled_until for p in self._processes if p.ready]
        if timers:
            instants.append(timers[0].when())
        if not instants:
            raise SimulationStuckError("nothing is ready and no timer runs: everybody waits")
        now = min(instants)
        if now > self._now:
            self._now = now
            self._at_this_instant = 0
        while timers and timers[0].when() <= self._now:
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer.cancelled():
                self._cancelled_timers -= 1
            else:
                self._enqueue(timer)

    def _count(self) -> None:
        self.callbacks += 1
        self._at_this_instant += 1
        if self._at_this_instant > MAX_CALLBACKS_PER_INSTANT or self.callbacks > MAX_CALLBACKS:
            raise SimulationStuckError(f"at {self._now:.3f} s something runs for ever")

    # -- what a simulated process has no use for

    def _process_events(self, event_list: Any) -> None:
        """No sockets."""

    def _write_to_self(self) -> None:
        """No other thread that could wake this one."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        raise RuntimeError("a simulated process has no threads: use Runtime.run_blocking")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _nothing() -> None:
    """What a dead process's task does."""


SimulatedWork: TypeAlias = Coroutine[Any, Any, None]
