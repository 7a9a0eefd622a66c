"""`app.sync`: the app for code that does not await, such as Django's and Flask's views, and scripts.

Everything happens on an event loop in a thread of its own, one for each app and process, which begins
with the first call. Any number of threads may call.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, overload

from kept.errors import ConfigurationError
from kept.runtime import LoopThread, at_exit
from kept.sdk.functions import Function
from kept.sdk.handle import Handle, WorkState
from kept.sdk.starting import StartOptions

if TYPE_CHECKING:
    from kept.sdk.app import App

P = ParamSpec("P")
T = TypeVar("T")


class SyncHandle(Generic[T]):
    """A way to the result of started work, as `Handle` is, for code that does not await."""

    def __init__(self, handle: Handle[T], run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._handle = handle
        self._run = run

    def __repr__(self) -> str:
        return f"SyncHandle({self.id!r})"

    @property
    def id(self) -> str:
        """The id of its promise."""
        return self._handle.id

    def result(self, timeout: timedelta | float | None = None) -> T:
        """Waits for the result. Raises as `Handle.result` does."""
        result: T = self._run(self._handle.result(timeout))
        return result

    def done(self) -> bool:
        """Whether it has ended, in whichever way."""
        return bool(self._run(self._handle.done()))

    def cancel(
        self, reason: str | None = None, *, force: bool = False, recursive: bool = True
    ) -> bool:
        """Cancels it, as `Handle.cancel` does."""
        return bool(self._run(self._handle.cancel(reason, force=force, recursive=recursive)))

    def send(self, name: str, value: Any = None, *, key: str | None = None) -> int:
        """Sends a message to its mailbox `name`; see `App.send`."""
        return int(self._run(self._handle.send(name, value, key=key)))

    def state(self) -> WorkState:
        """What the work says of itself, and whether it is over."""
        state: WorkState = self._run(self._handle.state())
        return state


class SyncApp:
    """The app for code that does not await. It opens with the first call, and closes with `close`, at
    the end of a `with` block, or with the process. Where the app has a worker, that works meanwhile.

    Every call raises `ConfigurationError` on a thread whose event loop runs: it would stand still.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._process = 0
        self._closes_at_exit = False

    def __enter__(self) -> SyncApp:
        self._opened()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the worker, closes the connection, ends the thread; idempotent. A later call opens
        the app again."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None or self._process != os.getpid():
                return
            try:
                thread.run(self._app.close())
            finally:
                thread.close()

    def _opened(self) -> LoopThread:
        with self._lock:
            if self._thread is not None and self._process == os.getpid():
                return self._thread
            # In a process that was forked the thread of its parent does not run.
            self._process = os.getpid()
            self._thread = None
            thread = LoopThread("kept-sync")
            try:
                thread.run(self._app.open())
            except BaseException:
                thread.close()
                raise
            if not self._closes_at_exit:
                at_exit(self.close)
                self._closes_at_exit = True
            self._thread = thread
            return thread

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            _refuse_beside_a_loop()
            thread = self._opened()
        except BaseException:
            work.close()
            raise
        return thread.run(work)

    # -- work ------------------------------------------------------------------------------------

    @overload
    def start(
        self, function: Function[P, Awaitable[T]], /, *args: Any, **kwargs: Any
    ) -> SyncHandle[T]: ...
    @overload
    def start(self, function: Function[P, T], /, *args: Any, **kwargs: Any) -> SyncHandle[T]: ...
    def start(self, function: Function[..., Any], /, *args: Any, **kwargs: Any) -> SyncHandle[Any]:
        """Starts a registered function, with the arguments, options and errors of `App.start`."""
        return self._handled(self._run(self._app.start(function, *args, **kwargs)))

    @overload
    def run(self, function: Function[P, Awaitable[T]], /, *args: Any, **kwargs: Any) -> T: ...
    @overload
    def run(self, function: Function[P, T], /, *args: Any, **kwargs: Any) -> T: ...
    def run(self, function: Function[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Starts a function and waits for its result, as `App.run` does."""
        return self._run(self._app.run(function, *args, **kwargs))

    def enqueue(
        self, name: str, *, args: dict[str, Any] | None = None, **options: Unpack[StartOptions]
    ) -> SyncHandle[Any]:
        """Starts a function by its name, as `App.enqueue` does."""
        return self._handled(self._run(self._app.enqueue(name, args=args, **options)))

    def start_many(
        self, function: Function[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> list[SyncHandle[Any]]:
        """Starts a function once for each tuple of arguments, as `App.start_many` does."""
        handles = self._run(self._app.start_many(function, calls))
        return [self._handled(handle) for handle in handles]

    def handle(self, id: str, type: Any = Any) -> SyncHandle[Any]:
        """A handle to work that was started elsewhere; `type` is what its result must be."""

        async def made(app: App) -> Handle[Any]:
            return app.handle(id, type)

        return self._handled(self.call(made))

    def send(self, id: str, name: str, value: Any = None, *, key: str | None = None) -> int:
        """Sends a message to the mailbox `name` of work, as `App.send` does."""
        return self._run(self._app.send(id, name, value, key=key))

    def state(self, id: str) -> WorkState:
        """What work says of itself, as `App.state` tells it."""
        return self._run(self._app.state(id))

    def resolve(self, id: str, value: Any = None) -> None:
        """Answers what `ctx.promise` waits for, as `app.promises.resolve` does."""
        self.call(lambda app: app.promises.resolve(id, value))

    def call(self, work: Callable[[App], Coroutine[Any, Any, T]]) -> T:
        """Does anything else there and waits for it, such as
        `app.sync.call(lambda app: app.queues.pause("mail"))`."""

        async def called() -> T:
            return await work(self._app)

        return self._run(called())

    def _handled(self, handle: Handle[T]) -> SyncHandle[T]:
        return SyncHandle(handle, self._run)


def _refuse_beside_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "app.sync was used on a thread whose event loop runs, which it would stop: await the app's own "
        "methods there"
    )
