"""A program: work to start, and what is right of what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple, TypeAlias


class Program(NamedTuple):
    """Work to start: `function` by name, its arguments, and the results that are right.

    `canceled`: whoever starts it cancels it, so that this too is right; `halted`: halts it and lets
    it go on. `approved`: it waits for a promise. `timeout`: its deadline in seconds, which may
    strike. `errors`: types of the errors that are right. `repair`: it fails until the boundary is
    repaired under this key, and is then replayed. `by_name`: it is started by its name alone.
    `messages`: how many it is sent.
    """

    function: str
    args: tuple[Any, ...]
    results: tuple[Any, ...]
    canceled: bool = False
    approved: bool = False
    halted: bool = False
    timeout: float | None = None
    errors: tuple[str, ...] = ()
    repair: str | None = None
    messages: int = 0
    by_name: str | None = None
    # An id that is hard on whoever splits, quotes or shortens ids.
    hostile_id: bool = False
    # The effects that must have happened, as suffixes of the id, where it resolved.
    effects: tuple[str, ...] = ()
    # How often something was tried at least, by suffixes of the id, where it resolved.
    tries: tuple[tuple[str, int], ...] = ()

    @property
    def disturbed(self) -> bool:
        """Whether somebody interferes with it, so that a step may have to run again."""
        return self.canceled or self.halted or self.timeout is not None


Drawn: TypeAlias = Callable[[Random], Program]
