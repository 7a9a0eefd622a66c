"""Batched functions: what many ask for one by one is done together.

A batch begins when it is full, when nothing else on the worker can make progress, or when its first
item has waited for long enough. One batch of a function runs at a time; meanwhile the next one gathers.
"""

from __future__ import annotations

import asyncio
import contextlib
import typing
from collections.abc import Awaitable, Callable, Iterator, Sequence
from inspect import Parameter, Signature
from typing import Any, Final, NamedTuple, Protocol, TypeVar, overload

from kept.runtime import Runtime
from kept.sdk.functions import Function

X = TypeVar("X")
R = TypeVar("R")

DEFAULT_SIZE: Final = 1_000
DEFAULT_WAIT_SECONDS: Final = 0.01
ITEM: Final = "item"

Handler = Callable[[list[Any]], Awaitable[Any]]


class Motion:
    """How much a worker does at the moment besides waiting for batches."""

    def __init__(self) -> None:
        self._busy = 0
        self._told = False
        # Called soon after everything has come to rest.
        self.on_rest: Callable[[], object] = lambda: None

    @property
    def rests(self) -> bool:
        """Whether nothing can make progress by itself."""
        return not self._busy

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Something that makes progress."""
        self._busy += 1
        try:
            yield
        finally:
            self._less()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within `working`: it waits for what others do."""
        self._less()
        try:
            yield
        finally:
            self._busy += 1

    def _less(self) -> None:
        self._busy -= 1
        if not self._busy and not self._told:
            # What goes on in this very turn of the loop counts.
            self._told = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._told = False
        if self.rests:
            self.on_rest()


class Batch(NamedTuple):
    """How a batched function does many items: `handler` takes a list of at most `max_size`, and none of
    them waits for others longer than `max_wait` seconds."""

    handler: Function[..., Any]
    max_size: int
    max_wait: float


class _Gathering:
    """The items of one function that wait for a batch."""

    def __init__(self, batch: Batch, run: Handler, runtime: Runtime, motion: Motion) -> None:
        self._batch = batch
        self._run = run
        self._runtime = runtime
        self._motion = motion
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None

    async def add(self, item: Any) -> Any:
        """The result of one item, out of a batch."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._batch.max_size:
            self.begin()
        elif self._timer is None:
            self._timer = self._runtime.spawn(self._begin_later(), "kept-batch-timer")
        with self._motion.waiting():
            return await future

    def begin(self) -> None:
        """A batch of what waits, if none runs."""
        if self._waiting and self._running is None:
            self._running = self._runtime.spawn(self._run_all(), "kept-batch")

    async def _begin_later(self) -> None:
        try:
            await self._runtime.sleep(self._batch.max_wait)
        finally:
            self._timer = None
        self.begin()

    async def _run_all(self) -> None:
        try:
            while True:
                some = self._waiting[: self._batch.max_size]
                del self._waiting[: self._batch.max_size]
                some = [(item, future) for item, future in some if not future.done()]
                if some:
                    await self._run_batch(some)
                is_full = len(self._waiting) >= self._batch.max_size
                if not self._waiting or not (is_full or self._motion.rests):
                    break
        finally:
            self._running = None
            if self._waiting and self._timer is None:
                self._timer = self._runtime.spawn(self._begin_later(), "kept-batch-timer")

    async def _run_batch(self, some: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        try:
            results = each_of(await self._run([item for item, _ in some]), len(some))
        except Exception as error:  # noqa: BLE001 - whatever it raised is the outcome of each item
            results = [error] * len(some)
        for (_, future), result in zip(some, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


class Batches:
    """All batched functions of one worker. `call` calls a handler as a step is called."""

    def __init__(
        self,
        runtime: Runtime,
        motion: Motion,
        call: Callable[[Function[..., Any], tuple[Any, ...], dict[str, Any]], Awaitable[Any]],
    ) -> None:
        self._runtime = runtime
        self._motion = motion
        self._call = call
        self._gathering: dict[str, _Gathering] = {}
        motion.on_rest = self._begin_all

    async def add(self, function: Function[..., Any], batch: Batch, item: Any) -> Any:
        """The result of one item."""
        gathering = self._gathering.get(function.reference)
        if gathering is None:
            gathering = self._gathering[function.reference] = _Gathering(
                batch,
                lambda items: self._call(batch.handler, (items,), {}),
                self._runtime,
                self._motion,
            )
        return await gathering.add(item)

    def _begin_all(self) -> None:
        for gathering in self._gathering.values():
            gathering.begin()


def each_of(results: Any, count: int) -> Sequence[Any]:
    """What a handler gave, for each item: a list of as many, or one value for all."""
    if not isinstance(results, list | tuple):
        return [results] * count
    if len(results) != count:
        raise ValueError(f"the handler gave {len(results)} results for {count} items")
    return results


class BatchDeclaration(Protocol):
    """`@app.batched(…)`: what it makes of a function over a list."""

    @overload
    def __call__(
        self, handler: Callable[[list[X]], Awaitable[list[R]]], /
    ) -> Function[[X], Awaitable[R]]: ...
    @overload
    def __call__(self, handler: Callable[[list[X]], list[R]], /) -> Function[[X], Awaitable[R]]: ...
    @overload
    def __call__(self, handler: Callable[[list[X]], Any], /) -> Function[[X], Awaitable[Any]]: ...


def one_of(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one item, named and annotated as the handler of many is. Called by itself, it is a
    batch of one."""

    async def one(item: Any) -> Any:
        found = handler([item])
        if isinstance(found, Awaitable):
            found = await found
        result = each_of(found, 1)[0]
        if isinstance(result, Exception):
            raise result
        return result

    try:
        hints = typing.get_type_hints(handler)
    except (NameError, TypeError):
        hints = {}
    returns = hints.pop("return", Any)
    takes = _element(next(iter(hints.values()), Any))
    annotations = {ITEM: takes, "return": _element(returns) if _is_list(returns) else returns}
    one.__name__ = one.__qualname__ = str(getattr(handler, "__name__", "batched"))
    one.__doc__, one.__module__ = handler.__doc__, handler.__module__
    one.__annotations__ = annotations
    parameter = Parameter(ITEM, Parameter.POSITIONAL_OR_KEYWORD, annotation=takes)
    one.__signature__ = Signature([parameter])  # type: ignore[attr-defined]
    return one


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple) or hint in (list, tuple)


def _element(hint: Any) -> Any:
    """What a list of that kind has; Any where that is not said."""
    parts = typing.get_args(hint)
    return parts[0] if parts else Any
