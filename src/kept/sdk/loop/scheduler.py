"""What durable code sees of its loop: asyncio's interface, each task a branch, each timer durable."""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple

from kept.sdk.loop.diagnosis import Unhandled
from kept.sdk.loop.errors import EvictedError
from kept.sdk.loop.generators import Abandoned, Generators
from kept.sdk.loop.nesting import Nesting
from kept.sdk.loop.order import ENSURE_FUTURE, WAIT, AsCompleted, check_waitable
from kept.sdk.loop.refusals import Refusals, not_durable
from kept.sdk.loop.tasks import DurableFuture, DurableTask
from kept.sdk.loop.timers import DurableTimer, TimerHost

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_REPORTS: Final = 100

# Closing an abandoned generator may begin at any time. Its task is numbered from here, so that all others
# keep their numbers.
_FIRST_CLOSER: Final = 1 << 40


class Scheduler(Refusals):
    """The half of the loop that asyncio and durable code call. `DurableLoop` adds the owner's half."""

    def __init__(self, host: TimerHost) -> None:
        self._host = host
        self._ready: deque[asyncio.Handle] = deque()
        self._root: DurableTask[Any] | None = None
        self._tasks: dict[int, DurableTask[Any]] = {}
        self._failed: dict[int, DurableTask[Any]] = {}
        self._reports: list[Unhandled] = []
        self._timers: dict[str, DurableTimer] = {}
        self._made = 0
        self._closers = _FIRST_CLOSER
        self._listing = AsCompleted()
        self._generators = Generators(lambda: self._current().next_child())
        self._nesting = Nesting(
            self, begins=self._generators.begins, abandoned=self._generator_dropped
        )
        self._own_context = Context()
        self._eager = False
        self._debug = False
        self._closed = False

    # -- callbacks

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As in asyncio. After `close` the callback is dropped: futures still call this in their cleanup."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As `call_soon`, for durable code itself. What a thread brings comes at no repeatable time."""
        if events._get_running_loop() is self:
            return self.call_soon(callback, *args, context=context)
        raise not_durable(
            "a callback from another thread", "run the thread within a step", sys._getframe(1)
        )

    # -- time

    def time(self) -> float:
        """The workflow's logical time: seconds since the epoch. It stands still during a run."""
        return self._host.now()

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """A durable timer, `delay` seconds of logical time from now."""
        return self.call_at(self._host.now() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """A durable timer at `when` seconds of logical time, named as the current branch's next step.

        One that is already due takes a name too, but is not armed: it is ready at once.
        """
        if math.isnan(when):
            raise ValueError("a timer cannot be due at NaN (not a number)")
        timer = DurableTimer(self.next_step(), when, callback, args, self, context)
        if when <= self._host.now():
            self._ready.append(timer)
        else:
            self._nesting.outside(self._host.arm, timer.timer_id, when, timer)
            self._timers[timer.timer_id] = timer
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if self._closed or not isinstance(handle, DurableTimer):
            return
        if self._timers.pop(handle.timer_id, None) is not None:
            self._nesting.outside(self._host.disarm, handle.timer_id)

    # -- futures and tasks

    def create_future(self) -> DurableFuture[Any]:
        """As in asyncio; hashes by number."""
        self._check_open()
        caller = sys._getframe(1)
        if caller.f_code is WAIT:
            check_waitable(caller.f_locals["fs"], caller)
        return DurableFuture[Any](self, number=self._next_number())

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> DurableTask[T]:
        """As in asyncio. The task is a branch: the next child of the current one."""
        if self._closed:
            coro.close()
            self._check_open()
        caller = sys._getframe(1)
        if caller.f_code in ENSURE_FUTURE:
            task: DurableTask[T] | None = self._listing.task_for(caller, coro)
            if task is not None:
                return task
        branch = self._current().next_child()
        eager = self._eager if eager_start is None else eager_start
        return self._spawn(coro, self._next_number(), branch, name, context, eager=eager)

    def next_step(self) -> str:
        """The name of the current branch's next step (see `names`): the same in every replay.

        Callbacks run in no task; what they ask for counts as the root's.
        """
        self._check_open()
        return self._current().next_step()

    def coming_step(self) -> str:
        """What `next_step` will name if the current branch asks next."""
        self._check_open()
        return self._current().coming_step()

    def _current(self) -> DurableTask[Any]:
        task = asyncio.current_task(self) or self._root
        if isinstance(task, DurableTask):
            return task
        if task is None:
            raise RuntimeError("start() comes first")
        raise not_durable(
            "a task made by calling asyncio.Task()",
            "it has no branch. Use asyncio.create_task()",
            sys._getframe(1),
        )

    def _next_number(self) -> int:
        self._made += 1
        return self._made

    def _spawn(
        self,
        coro: Any,
        number: int,
        branch: str,
        name: str | None = None,
        context: Context | None = None,
        *,
        eager: bool = False,
    ) -> DurableTask[Any]:
        task = DurableTask[Any](
            coro, self, number=number, branch=branch, name=name, context=context, eager=eager
        )
        self._tasks[number] = task
        task.add_done_callback(self._task_done, context=self._own_context)
        return task

    def _task_done(self, task: Any) -> None:
        del self._tasks[task.number]
        if task._log_traceback:
            # Kept alive, so that it does not depend on the garbage collector whether anyone looks at it.
            self._failed[task.number] = task

    def _check_open(self) -> None:
        if self._closed:
            raise EvictedError("the workflow is leaving memory; it goes on later, from its records")

    # -- asynchronous generators

    def _generator_dropped(self, generator: Any) -> None:
        abandoned = self._generators.dropped(generator)
        if self._closed or abandoned is None:
            return
        if events._get_running_loop() is self:
            self._close_soon(abandoned)
        else:
            self._generators.keep(abandoned)

    def _close_soon(self, abandoned: Abandoned) -> None:
        self.call_soon(self._close_generator, abandoned, context=abandoned.context)

    def _close_generator(self, abandoned: Abandoned) -> None:
        self._closers += 1
        self._spawn(abandoned.generator.aclose(), self._closers, abandoned.branch)

    # -- failures

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Collects into `unhandled`, the first ones; prints nothing.

        After `close` it is deaf: asyncio complains here of every task that is freed before its end.
        """
        if not self._closed and len(self._reports) < MAX_REPORTS:
            task = context.get("task")
            branch = task.branch if isinstance(task, DurableTask) else None
            self._reports.append(Unhandled(context["message"], context.get("exception"), branch))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Collects into `unhandled`."""
        self.call_exception_handler(context)

    def get_exception_handler(self) -> None:
        """None: the worker hears of what nobody handles."""

    # -- state and settings

    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._nesting.entered

    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def get_debug(self) -> bool:
        """What `set_debug` said. The process's own asyncio debug mode is for the worker's loop."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001 - asyncio's signature
        """As in asyncio: futures and callbacks remember where they were made."""
        self._debug = enabled

    def get_task_factory(self) -> Any:
        """None, or `asyncio.eager_task_factory`."""
        return getattr(asyncio, "eager_task_factory", None) if self._eager else None

    def set_task_factory(self, factory: Any) -> None:
        """None or (from Python 3.12) `asyncio.eager_task_factory`; others make tasks without a branch."""
        if factory is not None and factory is not getattr(asyncio, "eager_task_factory", None):
            raise not_durable(
                "a task factory of one's own", "its tasks have no branch", sys._getframe(1)
            )
        self._eager = factory is not None
