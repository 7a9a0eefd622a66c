"""What to tell of a workflow that failed unseen, or does not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from kept.sdk.loop.errors import DeadlockError, NoProgressError
from kept.sdk.loop.tasks import DurableTask, ExternalFuture
from kept.sdk.loop.where import waiting_line

MAX_BLOCKED_SHOWN: Final = 10


class Unhandled(NamedTuple):
    """A failure that no code of the workflow has looked at. `branch` is None outside of tasks."""

    message: str
    error: BaseException | None
    branch: str | None


class Blocked(NamedTuple):
    """A task that waits: its branch, the user's line, and for what."""

    branch: str
    line: str
    waits_for: str


def blocked(tasks: Iterable[DurableTask[Any]]) -> list[Blocked]:
    """Where each of the tasks waits, and for what."""
    return [
        Blocked(task.branch, waiting_line(task.get_coro()), _awaited(task))
        for task in tasks
        if not task.done()
    ]


def deadlock(tasks: Iterable[DurableTask[Any]]) -> DeadlockError:
    """The error for tasks that nothing from outside can wake."""
    waits = [
        f"  branch {branch or 'root'} at {line}: {what}" for branch, line, what in blocked(tasks)
    ]
    if len(waits) > MAX_BLOCKED_SHOWN:
        waits[MAX_BLOCKED_SHOWN:] = [f"  and {len(waits) - MAX_BLOCKED_SHOWN} more"]
    return DeadlockError(
        "the workflow waits, but for nothing that can still happen:\n" + "\n".join(waits)
    )


def no_progress(next_up: asyncio.Handle, callbacks: int) -> NoProgressError:
    """The error for code that ran that many callbacks in one go."""
    task = task_of(next_up)
    where = _named(next_up) if task is None else waiting_line(task.get_coro())
    return NoProgressError(
        f"{where}: {callbacks:,} callbacks ran in one go, and the code still does not wait for anything"
        " from outside. Wait for a step, a promise or a message, or asyncio.sleep() for more than 0"
        " seconds; split what really is that large"
    )


def task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task that a callback is a step of, if it is."""
    owner = getattr(getattr(handle, "_callback", None), "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def _named(handle: asyncio.Handle) -> str:
    """The callback's name. Not its `repr`, whose addresses would differ from one run to the next."""
    callback = getattr(handle, "_callback", None)
    return getattr(callback, "__qualname__", type(callback).__name__)


def _awaited(task: DurableTask[Any]) -> str:
    future = getattr(task, "_fut_waiter", None)
    if isinstance(future, ExternalFuture):
        return f"step {future.step}"
    if isinstance(future, DurableTask):
        return f"branch {future.branch}"
    return "a future that other code of the workflow settles"
