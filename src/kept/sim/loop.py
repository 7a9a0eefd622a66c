"""An asyncio event loop on which time is a number and the order of callbacks a draw.

There is no selector and no thread. While anything is ready, time stands still; when nothing is, it
moves to the next timer. Which process goes next is drawn from the seed; within a process callbacks
run in the order in which they were scheduled, as asyncio promises, unless `shuffled`.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events
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


class Turn:
    """A callback to be run: what asyncio calls a handle, without what only a debugger asks it."""

    __slots__ = ("args", "callback", "context", "loop", "timer_at", "was_cancelled")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: SimulatedLoop,
        context: Context,
    ) -> None:
        self.callback = callback
        self.args = args
        self.loop = loop
        self.context = context
        self.was_cancelled = False
        # The instant in virtual seconds, while it is a timer that has not ended.
        self.timer_at: float | None = None

    def cancel(self) -> None:
        """It will not be run; idempotent."""
        if self.was_cancelled:
            return
        self.was_cancelled = True
        # Whatever they hold on to lives no longer than need be.
        self.callback, self.args = _wake, ()
        if self.timer_at is not None:
            self.loop.timer_cancelled()

    def cancelled(self) -> bool:
        return self.was_cancelled

    def when(self) -> float:
        """The instant (virtual seconds) of a timer."""
        assert self.timer_at is not None
        return self.timer_at

    def run(self) -> None:
        """Runs the callback; what it raises is the loop's exception handler's."""
        try:
            self.context.run(self.callback, *self.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio's handles do
            self.loop.call_exception_handler(
                {"message": f"Exception in callback {self.callback!r}", "exception": error}
            )


class SimulatedLoop(base_events.BaseEventLoop):
    """Virtual time in seconds from 0. `random` draws the order; `kernel` is what belongs to none
    of the simulated processes: network, disks and the director of the play."""

    def __init__(self, random: Random, kernel: Process, *, shuffled: bool = False) -> None:
        super().__init__()
        self.set_debug(False)
        self.kernel = kernel
        self.callbacks = 0
        self.errors: list[ErrorContext] = []
        # Called after each callback of a process that has so many left.
        self.after_callback: Callable[[Process], None] | None = None
        self._random = random
        self._shuffled = shuffled
        self._now = 0.0
        # Instant, number in order of setting, what to run.
        self._timers: list[tuple[float, int, Turn]] = []
        self._timer_number = 0
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
    ) -> Turn:
        if context is None:
            context = copy_context()
        turn = Turn(callback, args, self, context)
        owner = owner_of(context) or self.kernel
        if owner.alive:
            owner.ready.append(turn)
        return turn

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Turn:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Turn:
        when = max(when, self._now + SHORTEST_WAIT_SECONDS)
        turn = Turn(callback, args, self, context or copy_context())
        turn.timer_at = when
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, turn))
        return turn

    def create_task(  # type: ignore[override]
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        if context is None:
            context = copy_context()
        owner = owner_of(context) or self.kernel
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

    def timer_cancelled(self) -> None:
        """A timer in the heap will not be run; when many are, they leave it."""
        self._cancelled_timers += 1
        if self._cancelled_timers > max(MIN_CANCELLED_TIMERS, len(self._timers) // 2):
            self._timers = [timer for timer in self._timers if not timer[2].was_cancelled]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    # -- running

    def _run_once(self) -> None:
        owner = self._next_owner()
        ready = owner.ready
        if self._shuffled and len(ready) > 1 and owner is not self.kernel:
            ready.rotate(-self._random.randrange(len(ready)))
        turn = ready.popleft()
        if turn.was_cancelled:
            return
        self._count()
        turn.run()
        # Every callback passes here; few belong to a process that is about to die.
        if owner.callbacks_left is not None and self.after_callback is not None:
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
        while timers and timers[0][2].was_cancelled:
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        instants = [p.stalled_until for p in self._processes if p.ready]
        if timers:
            instants.append(timers[0][0])
        if not instants:
            raise SimulationStuckError("nothing is ready and no timer runs: everybody waits")
        now = min(instants)
        if now > self._now:
            self._now = now
            self._at_this_instant = 0
        while timers and timers[0][0] <= self._now:
            turn = heapq.heappop(timers)[2]
            turn.timer_at = None
            if turn.was_cancelled:
                self._cancelled_timers -= 1
                continue
            owner = owner_of(turn.context) or self.kernel
            if owner.alive:
                owner.ready.append(turn)

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
