"""Asynchronous generators that are dropped unfinished: closed as a branch of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context, copy_context
from typing import Any, NamedTuple

Generator = AsyncGenerator[Any, Any]


class Abandoned(NamedTuple):
    """A generator to close, the branch that closes it, and the context that it began in."""

    generator: Generator
    branch: str
    context: Context


class Generators:
    """Knows the generators that began, and keeps those that were dropped until the loop can close them.

    When Python drops one depends on references, and within a cycle of them on the garbage collector. So the
    branch that will close it is named when the generator begins, whether or not it will be needed.
    """

    def __init__(self, next_branch: Callable[[], str]) -> None:
        self._next_branch = next_branch
        self._begun: dict[int, tuple[str, Context]] = {}
        self._waiting: deque[Abandoned] = deque()

    def begins(self, generator: Generator) -> None:
        """Python's hook for the first iteration.

        Entered by address: a weak reference would be dead when the generator is announced as dropped. An
        address that is used again is entered again.
        """
        self._begun[id(generator)] = self._next_branch(), copy_context()

    def dropped(self, generator: Generator) -> Abandoned | None:
        """What to close, when Python drops `generator`. None: it began before this loop was there."""
        begun = self._begun.pop(id(generator), None)
        return None if begun is None else Abandoned(generator, *begun)

    def keep(self, abandoned: Abandoned) -> None:
        """For the next run: the garbage collector came by while none was under way, perhaps in a thread."""
        self._waiting.append(abandoned)

    def kept(self) -> list[Abandoned]:
        """Those kept for this run, removed from here."""
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken

    def clear(self) -> None:
        """Forgets all of them, unclosed."""
        self._begun.clear()
        self._waiting.clear()
