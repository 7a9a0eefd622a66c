"""Standing inside another running loop, and leaving it as it was found."""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, NamedTuple, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
GeneratorHook = Callable[[AsyncGenerator[Any, Any]], None]


class _Outer(NamedTuple):
    """What was there before: the running loop (None outside of any), its generator hooks, the context."""

    loop: asyncio.AbstractEventLoop | None
    hooks: Any
    context: Context


class Nesting:
    """Makes `loop` the running one for a while, within whatever runs already.

    asyncio keeps the current task of each loop apart, so an outer task stays current in its own loop all
    along.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, begins: GeneratorHook, abandoned: GeneratorHook
    ) -> None:
        self._loop = loop
        self._begins = begins
        self._abandoned = abandoned
        self._outer: _Outer | None = None

    @property
    def entered(self) -> bool:
        """Whether a `with entering()` is under way, even while `outside` is."""
        return self._outer is not None

    @contextmanager
    def entering(self) -> Iterator[None]:
        """The loop runs within this block. Raises RuntimeError when it does already."""
        if self._outer is not None:
            raise RuntimeError("this loop is running")
        outer = _Outer(events._get_running_loop(), sys.get_asyncgen_hooks(), copy_context())
        self._outer = outer
        self._step_in()
        try:
            yield
        finally:
            self._step_out(outer)
            self._outer = None

    def outside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `function` as if before the block was entered: on that loop, in a copy of that context."""
        outer = self._outer
        if outer is None or events._get_running_loop() is not self._loop:
            return function(*args, **kwargs)
        self._step_out(outer)
        try:
            return outer.context.run(function, *args, **kwargs)
        finally:
            self._step_in()

    def _step_in(self) -> None:
        events._set_running_loop(self._loop)
        sys.set_asyncgen_hooks(firstiter=self._begins, finalizer=self._abandoned)

    def _step_out(self, outer: _Outer) -> None:
        sys.set_asyncgen_hooks(*outer.hooks)
        events._set_running_loop(outer.loop)
