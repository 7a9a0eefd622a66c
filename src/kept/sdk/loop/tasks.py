"""Tasks and futures that hash by number, so that a set of them has the same order in every replay.

asyncio keeps tasks in sets (`wait`, `as_completed`, `TaskGroup`), and its own tasks hash by their address in
memory, which no replay can repeat. Ours hash by the order in which their loop made them. Equality stays
identity.
"""

from __future__ import annotations

import asyncio
from asyncio import tasks
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

from kept.sdk.loop.names import child_branch, step_name

T = TypeVar("T")


class DurableTask(asyncio.Task[T]):
    """One branch of a workflow: `branch` is its name, `number` its place in the order of creation.

    Only `DurableLoop.create_task` makes them.
    """

    __slots__ = ("_children", "_steps", "branch", "number")

    def __init__(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        *,
        number: int,
        branch: str,
        name: object = None,
        context: Context | None = None,
        eager: bool = False,
    ) -> None:
        # Before the base class: it hashes the task, and an eager one runs within this very call.
        self.number = number
        self.branch = branch
        self._children = 0
        self._steps = 0
        # asyncio's own default name counts the tasks of the whole process.
        label = f"branch {branch or 'root'}" if name is None else str(name)
        if eager:
            super().__init__(coro, loop=loop, name=label, context=context, eager_start=True)  # type: ignore[call-arg]
        else:
            super().__init__(coro, loop=loop, name=label, context=context)
        # asyncio's registry is one weak set for all loops. Task 1 of ten thousand workflows would be ten
        # thousand equal hashes in it. The loop keeps its own tasks, and keeps them alive.
        tasks._unregister_task(self)

    def __hash__(self) -> int:
        return self.number

    def next_step(self) -> str:
        """The name of this branch's next step."""
        self._steps += 1
        return step_name(self.branch, self._steps)

    def coming_step(self) -> str:
        """What `next_step` will name."""
        return step_name(self.branch, self._steps + 1)

    def next_child(self) -> str:
        """The name of this branch's next child."""
        self._children += 1
        return child_branch(self.branch, self._children - 1)


class DurableFuture(asyncio.Future[T]):
    """A future that hashes by its place in the order of creation."""

    __slots__ = ("number",)

    def __init__(self, loop: asyncio.AbstractEventLoop, *, number: int) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class ExternalFuture(DurableFuture[T]):
    """A future that only the outer world settles, through the loop's owner: what step `step` comes to."""

    __slots__ = ("_on_cancel", "step")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        number: int,
        step: str,
        on_cancel: Callable[[ExternalFuture[T]], None],
    ) -> None:
        super().__init__(loop, number=number)
        self.step = step
        self._on_cancel = on_cancel

    def cancel(self, *args: Any, **kwargs: Any) -> bool:
        """As of any future; the loop learns at once that the code no longer waits for this."""
        cancelled = super().cancel(*args, **kwargs)
        if cancelled:
            self._on_cancel(self)
        return cancelled
