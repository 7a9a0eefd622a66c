"""What the owner of a durable loop sees: start, run to quiescence, bring results in one by one, drop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, ParamSpec, TypeVar

from kept.sdk.loop import diagnosis
from kept.sdk.loop.diagnosis import Blocked, Unhandled
from kept.sdk.loop.errors import DeadlockError
from kept.sdk.loop.eviction import evict, without_complaints
from kept.sdk.loop.scheduler import Scheduler
from kept.sdk.loop.tasks import DurableTask, ExternalFuture
from kept.sdk.loop.timers import DurableTimer, TimerHost

T = TypeVar("T")
P = ParamSpec("P")

# A result that starts a hundred thousand branches needs some five callbacks for each of them.
MAX_CALLBACKS_PER_RUN: Final = 1_000_000


class DurableLoop(Scheduler):
    """A pure, deterministic event loop for one workflow.

    `host` gives time and keeps the timers. `max_callbacks` bounds one `run_ready`.

    The owner calls `start`, then `run_ready`, and then one of `release`, `release_error`, `fire` and
    `cancel_root`, followed by `run_ready`, again and again until `root` is done and `open_tasks()` is empty;
    `close` ends it at any time in between. One thread at a time.
    """

    def __init__(self, host: TimerHost, *, max_callbacks: int = MAX_CALLBACKS_PER_RUN) -> None:
        super().__init__(host)
        self._max_callbacks = max_callbacks
        self._externals: dict[str, ExternalFuture[Any]] = {}

    # -- running

    def start(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> DurableTask[T]:
        """Makes the root task, whose branch is `""`. Once only; nothing runs before `run_ready`.

        `context` holds the root's context variables. By default it is empty: what the worker has set for
        itself is not the workflow's, and would differ in a replay.
        """
        if self._root is not None or self._closed:
            raise RuntimeError("a loop runs one workflow, once")
        self._root = self._spawn(coro, self._next_number(), "", name, context or Context())
        return self._root

    def run_ready(self) -> int:
        """Runs ready callbacks, and those they make ready, until none is left; returns how many ran.

        It may be called from a callback or a task of another running loop, which is the running one again
        when this returns. Raises `NoProgressError` after `max_callbacks` callbacks, and lets a
        KeyboardInterrupt pass: after either, the loop is good for `close` only.
        """
        if self._closed:
            raise RuntimeError("this loop is closed")
        with self._nesting.entering():
            for abandoned in self._generators.kept():
                self._close_soon(abandoned)
            ran = self._drain()
        if self._failed:
            self._failed = {n: task for n, task in self._failed.items() if task._log_traceback}
        return ran

    def _drain(self) -> int:
        ready = self._ready
        for ran in range(self._max_callbacks):
            if not ready:
                return ran
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._run()
            except SystemExit as error:
                # A workflow that calls sys.exit() fails, and does not take the worker with it. A task has
                # kept the error for itself.
                if diagnosis.task_of(handle) is None:
                    self.call_exception_handler({"message": "in a callback", "exception": error})
        if ready:
            raise diagnosis.no_progress(ready[0], self._max_callbacks)
        return self._max_callbacks

    def outside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `function` as if from where `run_ready` was called: on that loop, in a copy of that context.

        For the worker's own code beneath a Context's methods, which durable code calls in the midst of a run:
        there the running loop is this one, and a task made there would be the workflow's.
        """
        return self._nesting.outside(function, *args, **kwargs)

    # -- what comes in

    def external(
        self, step: str, *, on_cancel: Callable[[str], object] | None = None
    ) -> ExternalFuture[Any]:
        """A future for what step `step` (from `next_step`) comes to. Only `release` and its kin settle it.

        `on_cancel(step)` is called, outside, when the code cancels the future; not by `close`.
        """
        self._check_open()
        if step in self._externals or step in self._timers:
            raise RuntimeError(f"step {step} is waited for already")

        def cancelled(_: ExternalFuture[Any]) -> None:
            waited_for = self._externals.pop(step, None) is not None
            if waited_for and on_cancel is not None and not self._closed:
                self.outside(on_cancel, step)

        number = self._next_number()
        future = ExternalFuture[Any](self, number=number, step=step, on_cancel=cancelled)
        self._externals[step] = future
        return future

    def release(self, step: str, result: object) -> bool:
        """Gives a step's result to the code; `run_ready` must follow.

        False, and nothing happens, when nothing waits for that step: it was cancelled, or never asked for.
        Raises RuntimeError when the loop is not quiet: results come in one at a time.
        """
        future = self._released(step)
        if future is not None:
            future.set_result(result)
        return future is not None

    def release_error(self, step: str, error: BaseException) -> bool:
        """Like `release`, for a step that failed with `error`."""
        future = self._released(step)
        if isinstance(error, StopIteration):
            # A future cannot hold it: thrown into a coroutine, it would look like the coroutine's end.
            cause, error = error, RuntimeError(f"the step raised {error!r}")
            error.__cause__ = cause
        if future is not None:
            future.set_exception(error)
        return future is not None

    def _released(self, step: str) -> ExternalFuture[Any] | None:
        self._check_quiet()
        future = self._externals.pop(step, None)
        return None if future is None or future.done() else future

    def fire(self, timer_id: str) -> bool:
        """A timer is due; `run_ready` must follow. False when it is not armed, or not any more.

        The host has moved its `now()` to the timer's instant before.
        """
        self._check_quiet()
        timer = self._timers.pop(timer_id, None)
        if timer is not None:
            self._ready.append(timer)
        return timer is not None

    def cancel_root(self, message: str | None = None) -> bool:
        """Cancels the root as `Task.cancel` does; when it is done, every task that it left open.

        `run_ready` must follow. False when nothing was left to cancel.
        """
        self._check_quiet()
        root = self._root
        targets = self.open_tasks() if root is None or root.done() else [root]
        cancelled = [task.cancel(message) for task in targets]
        return any(cancelled)

    def _check_quiet(self) -> None:
        if self._closed or self._nesting.entered or self._ready:
            raise RuntimeError("one thing at a time, and run_ready() after each")

    # -- looking

    @property
    def root(self) -> DurableTask[Any] | None:
        """The root task, once started."""
        return self._root

    @property
    def idle(self) -> bool:
        """No callback is ready."""
        return not self._ready

    def waiting(self) -> list[str]:
        """The names of the steps, then of the timers, that the code waits for, in the order of asking."""
        return [step for step in (*self._externals, *self._timers) if self.waits_for(step)]

    def waits_for(self, step: str) -> bool:
        """Whether the code waits for that step or timer now."""
        future = self._externals.get(step)
        return step in self._timers if future is None else not future.done()

    def timers(self) -> list[DurableTimer]:
        """The armed timers, in the order of arming."""
        return list(self._timers.values())

    def open_tasks(self) -> list[DurableTask[Any]]:
        """The tasks still alive besides the root, in the order of creation."""
        return [task for task in self._alive() if task is not self._root]

    def blocked(self) -> list[Blocked]:
        """Every task alive: its branch, the line where it waits, and for what."""
        return diagnosis.blocked(self._alive())

    def deadlock(self) -> DeadlockError | None:
        """The error to report when tasks are alive, the loop is quiet, and nothing outside can wake them."""
        if self._ready or not self._tasks or self._timers:
            return None
        if any(self.waits_for(step) for step in self._externals):
            return None
        return diagnosis.deadlock(self._alive())

    @property
    def unhandled(self) -> list[Unhandled]:
        """Failures that no code has looked at so far. The root's own is the owner's to look at."""
        failures = [
            Unhandled("never retrieved", task._exception, task.branch)
            for task in self._failed.values()
            if task._log_traceback and task is not self._root
        ]
        return failures + self._reports

    def _alive(self) -> list[DurableTask[Any]]:
        return [task for task in self._tasks.values() if not task.done()]

    # -- the end

    def close(self) -> None:
        """Drops the workflow where it stands. Idempotent; raises RuntimeError while it runs.

        Coroutines are closed, youngest first: `finally:` blocks run as far as their next await. What they ask
        of the loop then raises `EvictedError` and reaches nobody: no step, no timer, nothing disarmed.
        """
        if self._closed:
            return
        with self._nesting.entering(), without_complaints():
            self._reports = self.unhandled
            self._closed = True
            for task in reversed(self._alive()):
                evict(task)
            for held in (self._ready, self._tasks, self._failed, self._externals, self._timers):
                held.clear()
            self._generators.clear()
