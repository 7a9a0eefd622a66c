"""Named points at which a process kills itself with SIGKILL: around commits, deliveries and records.

Only a process that a test starts knows them: they wrap the real functions from outside, and kept has no
switch for them.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

from kept.engine import outbox
from kept.engine.committer import Committer
from kept.sdk.execution import Execution
from kept.sdk.services import Services
from kept.sdk.worker import Worker
from kept.stores.sqlite import connection, schema, store
from kept.stores.sqlite.store import SqliteStore
from kept.stores.sqlite.transaction import SqliteTransaction

Method = Callable[..., Any]


class Fuse:
    """Kills the process at the n-th pass."""

    def __init__(self, passes: int) -> None:
        self._left = passes

    def passed(self) -> None:
        self._left -= 1
        if self._left == 0:
            die()


def die() -> None:
    """Ends the process as a power cut would: nothing is cleaned up, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> Callable[[Fuse], None]:
    """The point right before a function of `owner`."""

    def arrange(fuse: Fuse) -> None:
        original: Method = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            fuse.passed()
            return original(*args, **kwargs)

        setattr(owner, name, wrapped)

    return arrange


def after(owner: Any, name: str) -> Callable[[Fuse], None]:
    """The point right after a plain function of `owner`."""

    def arrange(fuse: Fuse) -> None:
        original: Method = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            fuse.passed()
            return result

        setattr(owner, name, wrapped)

    return arrange


def after_awaited(owner: Any, name: str) -> Callable[[Fuse], None]:
    """The point right after a coroutine of `owner`."""

    def arrange(fuse: Fuse) -> None:
        original: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = await original(*args, **kwargs)
            fuse.passed()
            return result

        setattr(owner, name, wrapped)

    return arrange


def _between_statements_of_a_migration(fuse: Fuse) -> None:
    original = schema.statements_of

    def statements(script: str) -> Iterator[str]:
        for statement in original(script):
            fuse.passed()
            yield statement

    schema.statements_of = statements  # type: ignore[assignment]


def _during_a_checkpoint(fuse: Fuse) -> None:
    """While a commit copies the log into the file, which is written at no other time."""
    original = SqliteTransaction._sync

    def sync(self: SqliteTransaction) -> None:
        path, over = self._path, threading.Event()
        old = os.stat(path).st_mtime_ns

        def watch() -> None:
            while not over.is_set():
                if os.stat(path).st_mtime_ns != old:
                    fuse.passed()
                    return

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            original(self)
        finally:
            over.set()
            watching.join()

    SqliteTransaction._sync = sync  # type: ignore[method-assign]


# While a store is opened.
STARTING: Final[dict[str, Callable[[Fuse], None]]] = {
    "during a migration": _between_statements_of_a_migration,
    "after a migration, before its commit": after(store, "migrate"),
    "before the store is open": before(store, "_data_version"),
    "after the store is open": after_awaited(SqliteStore, "open"),
}
# Around every commit of a server, or of a worker with a store of its own.
COMMITTING: Final[dict[str, Callable[[Fuse], None]]] = {
    "before begin": before(SqliteStore, "_begin"),
    "after load": after_awaited(SqliteTransaction, "load"),
    "after save": after_awaited(SqliteTransaction, "save"),
    "before commit": before(SqliteTransaction, "_sync"),
    "after commit": after(SqliteTransaction, "_sync"),
    "before answers": before(Committer, "_answer"),
    "after answers": after(Committer, "_answer"),
    "during a checkpoint": _during_a_checkpoint,
}
# Between a commit and what it promised to others.
DELIVERING: Final[dict[str, Callable[[Fuse], None]]] = {
    "before messages are reserved": before(outbox.Outbox, "_take"),
    "before a delivery": before(outbox.Outbox, "_hand_over"),
    "after a delivery": after_awaited(outbox.Outbox, "_hand_over"),
}
# In a worker.
WORKING: Final[dict[str, Callable[[Fuse], None]]] = {
    "after a claim": before(Worker, "_work"),
    "after an effect": after_awaited(Services, "call"),
    "after an outcome": after_awaited(Services, "outcome_of"),
    "after a record": before(Execution, "_recorded"),
    "before a release": before(Execution, "_release"),
    "before a suspension": before(Execution, "_suspended"),
    "after a suspension": after_awaited(Execution, "_suspended"),
    "before a fulfilment": before(Services, "fulfill"),
    "after a fulfilment": after_awaited(Services, "fulfill"),
}
ALL: Final = STARTING | COMMITTING | DELIVERING | WORKING


def die_at(point: str, passes: int) -> None:
    """Arranges the death of this process at the n-th pass of a point; "" for none."""
    if point:
        ALL[point](Fuse(passes))


def checkpoint_after(pages: int) -> None:
    """Lets a commit bring the log into the file after fewer pages than usual; 0 leaves it."""
    if pages:
        connection.CHECKPOINT_PAGES = pages  # type: ignore[misc]


def try_again_after(milliseconds: int) -> None:
    """Lets a message whose delivery broke off be sent again sooner than usual; 0 leaves it."""
    if milliseconds:
        outbox.TRY_MS = milliseconds  # type: ignore[misc]


def is_halfway(path: str) -> bool:
    """Whether a file was left in the middle of a checkpoint: its log holds frames of which SQLite does
    not yet count as copied what is, perhaps in part, in the file."""
    with open(f"{path}-shm", "rb") as index:
        head = index.read(100)
    newest = int.from_bytes(head[16:20], "little")
    copied = int.from_bytes(head[96:100], "little")
    return copied < newest


def schema_version(path: str) -> int:
    """The version of a file's schema, read as any program may."""
    database = sqlite3.connect(path)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        return int(version)
    finally:
        database.close()


def names(*groups: dict[str, Callable[[Fuse], None]]) -> Sequence[str]:
    """The names of groups of points."""
    return [name for group in groups for name in group]
