"""Whose turn it is to write: a fair queue of all processes, and of all stores in one process.

Two locked files stand beside the database. Whoever wants to write takes the gate, then the writer,
then leaves the gate. So one that has just committed finds the next one holding the gate already
and cannot overtake it. The kernel frees the locks of a process that dies.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final
from weakref import WeakValueDictionary

from kept.errors import StoreBusyError
from kept.runtime import Runtime

try:
    import fcntl
except ImportError:  # not a POSIX system: SQLite's own lock decides, without fairness
    fcntl = None  # type: ignore[assignment]

# How long a writer waits for another process before it gives up.
MAX_TURN_WAIT_S: Final = 30.0

_known: WeakValueDictionary[tuple[int, str], Turns] = WeakValueDictionary()


def turns_for(directory: str, runtime: Runtime) -> Turns:
    """The queue of the database whose lock files are in `directory`, shared by all of its stores
    on this loop: they would block each other's threads otherwise."""
    loop = asyncio.get_running_loop()
    key = (id(loop), directory)
    turns = _known.get(key)
    if turns is None:
        turns = _known[key] = Turns(directory, loop, runtime)
    return turns


class Turns:
    """Taken before each transaction and given back after it."""

    def __init__(self, directory: str, loop: asyncio.AbstractEventLoop, runtime: Runtime) -> None:
        self._files: list[int] = []
        # Kept, so that no other loop gets its identity while this is known under it.
        self._loop = loop
        self._runtime = runtime
        self._directory = directory
        # Held by the store of this process whose turn it is.
        self.here = asyncio.Lock()
        for name in ("gate", "writer"):
            self._files.append(_open(os.path.join(directory, name)))
        self._gate, self._writer = self._files
        # A thread that waits for the locks; it may outlive the wish for them.
        self._waiting: asyncio.Task[None] | None = None

    async def take(self) -> None:
        """Waits for the turn. Raises `StoreBusyError` after MAX_TURN_WAIT_S."""
        await self.here.acquire()
        try:
            if fcntl is not None:
                await self._take_files()
        except BaseException:
            self.here.release()
            raise

    def give_back(self) -> None:
        """Lets the next one write."""
        self._unlock()
        self.here.release()

    async def _take_files(self) -> None:
        if self._waiting is None:
            gate_is_ours = _try_lock(self._gate)
            if gate_is_ours and _try_lock(self._writer):
                _unlock(self._gate)
                return
            self._waiting = self._runtime.spawn(self._lock_in_thread(gate_is_ours), "kept-turn")
        waiting = self._waiting
        timer = self._runtime.spawn(_wait(self._runtime, MAX_TURN_WAIT_S), "kept-turn-limit")
        try:
            await asyncio.wait({waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            waiting.add_done_callback(self._drop)
            raise
        finally:
            timer.cancel()
        if not waiting.done():
            waiting.add_done_callback(self._drop)
            raise StoreBusyError(
                f"another process has held {self._directory} for {MAX_TURN_WAIT_S:.0f} s; "
                "nothing was applied, try again"
            )
        self._waiting = None
        waiting.result()

    async def _lock_in_thread(self, gate_is_ours: bool) -> None:  # noqa: FBT001
        def lock() -> None:
            if not gate_is_ours:
                fcntl.flock(self._gate, fcntl.LOCK_EX)
            fcntl.flock(self._writer, fcntl.LOCK_EX)
            _unlock(self._gate)

        await self._runtime.run_blocking(lock)

    def _drop(self, waited: asyncio.Task[None]) -> None:
        """The locks came after nobody wanted them any more."""
        if self._waiting is waited and not self.here.locked():
            self._waiting = None
            self._unlock()

    def _unlock(self) -> None:
        if fcntl is not None:
            _unlock(self._writer)

    def __del__(self) -> None:
        for file in self._files:
            os.close(file)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)


async def _wait(runtime: Runtime, seconds: float) -> None:
    await runtime.sleep(seconds)
