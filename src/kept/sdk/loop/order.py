"""Three places where asyncio itself walks things in the order of their addresses, and what stands there
instead.

- `as_completed` puts coroutines into a set before it makes tasks of them: `AsCompleted` makes the tasks in
  the order in which they were listed.
- `wait` returns sets, and what `gather` returns is no future of ours: refused.
- `all_tasks` returns a set that was read from a weak set of the whole process: refused.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events, tasks
from collections import deque
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType
from typing import Any, Final

from kept.sdk.loop.refusals import Refusals, not_durable
from kept.sdk.loop.tasks import DurableFuture, DurableTask

# 3.11 has a private twin of ensure_future, which calls create_task.
ENSURE_FUTURE: Final[frozenset[CodeType]] = frozenset(
    function.__code__
    for function in (tasks.ensure_future, getattr(tasks, "_ensure_future", tasks.ensure_future))
)
WAIT: Final[CodeType] = tasks._wait.__code__  # type: ignore[attr-defined]

# Where as_completed makes its tasks, and its name there for what it was given. From 3.13 it is a class.
_ITERATOR: Final = getattr(tasks, "_AsCompletedIterator", None)
_AS_COMPLETED: Final[dict[CodeType, str]] = (
    {tasks.as_completed.__code__: "fs"}
    if _ITERATOR is None
    else {_ITERATOR.__init__.__code__: "aws"}
)


class AsCompleted:
    """Makes the tasks of one `as_completed` call all at once, in the order listed, and then hands them out.

    `as_completed` collects them in a set of its own, so it does not matter which one it gets for which
    coroutine, only that it gets each once.
    """

    def __init__(self) -> None:
        self._frame: FrameType | None = None
        self._tasks: deque[asyncio.Future[Any]] = deque()
        self._listed: set[int] = set()

    def task_for(self, caller: FrameType, coro: Any) -> Any:
        """The task to hand out when `caller` (in `ensure_future`) works for `as_completed`; else None."""
        frame = _as_completed_frame(caller)
        if frame is None:
            return None
        if frame is not self._frame:
            self._begin(frame)
        if id(coro) not in self._listed:
            coro.close()  # ensure_future wrapped an awaitable object that already has its task
        task = self._tasks.popleft()
        if not self._tasks:
            self._frame = None
            self._listed = set()
        return task

    def _begin(self, frame: FrameType) -> None:
        given = frame.f_locals[_AS_COMPLETED[frame.f_code]]
        if isinstance(given, (set, frozenset, Iterator)):
            raise not_durable(
                f"asyncio.as_completed() over a {type(given).__name__} of coroutines",
                "they would start in an order that depends on their addresses in memory. Give it a list",
                frame,
            )
        listed = [item for item in dict.fromkeys(given) if not asyncio.isfuture(item)]
        made = deque(asyncio.ensure_future(item) for item in listed)
        self._frame, self._tasks, self._listed = frame, made, {id(item) for item in listed}


def _as_completed_frame(caller: FrameType) -> FrameType | None:
    frame: FrameType | None = caller
    while frame is not None and frame.f_globals is tasks.__dict__:
        if frame.f_code in _AS_COMPLETED:
            return frame
        frame = frame.f_back
    return None


def check_waitable(futures: Iterable[Any], caller: FrameType) -> None:
    """Refuses futures without a number: the sets that `wait` returns would be in no order."""
    for future in futures:
        if not isinstance(future, (DurableTask, DurableFuture)):
            raise not_durable(
                f"asyncio.wait() for a {type(future).__name__}",
                "the sets it returns would be ordered by addresses in memory. Wait for tasks: put what you"
                " await into a coroutine of your own and asyncio.create_task() it",
                caller,
            )


class _AllTasksTrap:
    """Stands in asyncio's registry of tasks, where `all_tasks` asks everyone which loop is theirs."""

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        if isinstance(events._get_running_loop(), Refusals):
            raise not_durable(
                "asyncio.all_tasks()",
                "its order depends on addresses in memory. Keep your tasks in a list, or use a TaskGroup",
                sys._getframe(1),
            )
        return None


_TRAP: Final = _AllTasksTrap()
tasks._register_task(_TRAP)  # type: ignore[arg-type]
