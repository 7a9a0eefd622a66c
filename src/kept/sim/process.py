"""A simulated process: what dies together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kept.sim.loop import Turn

# Whose code runs now. It travels with asyncio's contexts, so whatever a process starts is its own.
_OWNER: ContextVar[Process] = ContextVar("kept_sim_owner")

# Closing throws GeneratorExit where a coroutine stands; one that awaits again gets it again there.
MAX_CLOSES: Final = 100
# Tasks that have ended are forgotten when so many have gathered since the last time.
TASKS_PER_PRUNING: Final = 256


class Process:
    """Callbacks, tasks and a name. A restart makes a new one, `incarnation` counts them.

    Once dead, nothing of it runs again: not a callback, not a timer, not a `finally` that reaches
    the world, because the seams to network and disk ask whether it is `alive`.
    """

    def __init__(self, name: str, incarnation: int = 1) -> None:
        self.name = name
        self.incarnation = incarnation
        self.alive = True
        self.ready: deque[Turn] = deque()
        # Virtual seconds until which nothing of it runs, as if the machine had no time for it.
        self.stalled_until = 0.0
        # Callbacks that it still runs before it dies; None: it is not to die.
        self.callbacks_left: int | None = None
        # A graceful stop, as by SIGTERM.
        self.told_to_stop = asyncio.Event()
        self.on_death: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._pruned_at = 0
        self.context = Context()
        self.context.run(_OWNER.set, self)

    def __repr__(self) -> str:
        return f"{self.name}#{self.incarnation}"

    def spawn(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], name: str
    ) -> asyncio.Task[Any]:
        """Runs `work` as this process's own, whoever calls."""
        return loop.create_task(work, name=name, context=self.context.copy())

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task of this process began."""
        self._tasks.append(task)
        if len(self._tasks) - self._pruned_at >= TASKS_PER_PRUNING:
            self._tasks = [each for each in self._tasks if not each.done()]
            self._pruned_at = len(self._tasks)

    def kill(self) -> None:
        """Ends it between two callbacks, as SIGKILL does; idempotent."""
        if not self.alive:
            return
        self.alive = False
        self.ready.clear()
        tasks, self._tasks = self._tasks, []
        for tell in self.on_death:
            tell()
        for task in reversed(tasks):
            if not task.done():
                self._bury(task)
            elif not self.told_to_stop.is_set():
                # Killed before anybody could look at how it ended.
                task._log_traceback = False

    def _bury(self, task: asyncio.Task[Any]) -> None:
        # asyncio complains of tasks that are freed before their end; here that is what death means.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine: Any = task.get_coro()
        for _ in range(MAX_CLOSES):
            try:
                self.context.copy().run(coroutine.close)
                return
            except Exception:  # noqa: BLE001 - clean-up that fails in a dead process harms nobody
                continue


def owner_of(context: Context) -> Process | None:
    """Whose callback runs in `context`."""
    return context.get(_OWNER)


def current_owner() -> Process | None:
    """Whose code is running."""
    return _OWNER.get(None)
