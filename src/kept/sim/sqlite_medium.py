"""A real file of SQLite's under a world: each process has the real store open on it.

The file is in memory where the system has a place for that, and nobody waits for its disk: whether a
commit would have been synced follows from the PRAGMAs that its connection was given. Faults are
errors of single statements, so the store meets them where it would meet real ones.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from typing import Any, Final

from kept.protocol.storage import Notice
from kept.runtime import Runtime
from kept.sim.medium import Restore
from kept.sim.news import News
from kept.sim.process import Process
from kept.sim.runtime import SimulatedRuntime
from kept.sim.storage_faults import BEGIN, COMMIT, LOAD, OTHER, SAVE, SCAN, StorageFaults
from kept.stores.base import Store, Transaction
from kept.stores.sqlite import SqliteStore
from kept.stores.sqlite.connection import open_file
from kept.stores.sqlite.schema import version_of
from kept.stores.sqlite.surroundings import Surroundings

# What stores are told: the real one would differ from run to run, and stands in their errors.
PATH: Final = "/simulated/kept.db"
# A file system in memory, where there is one.
FAST_DIRECTORY: Final = "/dev/shm"

_OPERATIONS: Final = {
    "BEGIN": BEGIN,
    "SELECT": LOAD,
    "WITH": LOAD,
    "INSERT": SAVE,
    "UPDATE": SAVE,
    "DELETE": SAVE,
    "COMMIT": COMMIT,
}
_SYNCHRONOUS: Final = "PRAGMA synchronous"
_SYNCED: Final = ("FULL", "EXTRA", "2", "3")


class SqliteMedium:
    """The file, and who has it open."""

    def __init__(self, runtime: SimulatedRuntime, faults: StorageFaults, news: News) -> None:
        self.faults = faults
        self._runtime = runtime
        self._news = news
        place = FAST_DIRECTORY if os.access(FAST_DIRECTORY, os.W_OK) else None
        self._directory = tempfile.TemporaryDirectory(prefix="kept-sim-", dir=place)
        self._path = os.path.join(self._directory.name, "kept.db")
        self._open: dict[Process, dict[SimulatedConnection, None]] = {}
        self._own = open_file(self._path)
        self._own.execute("PRAGMA synchronous = OFF")
        self._keeper: SqliteStore | None = None
        self._looking: list[sqlite3.Connection] = []

    def store(self, process: Process, runtime: Runtime, hear: Callable[[Notice], None]) -> Store:
        def connect(path: str) -> sqlite3.Connection:
            return self._connect(process)

        def neighbours(
            directory: str, runtime: Runtime, hear: Callable[[Notice], None]
        ) -> _Neighbours:
            return _Neighbours(self._news, process, hear)

        store = SqliteStore(PATH, runtime, _surroundings(connect, neighbours))
        store.on_notice = hear
        return store

    def _connect(self, process: Process) -> sqlite3.Connection:
        if not process.alive:
            raise sqlite3.OperationalError(f"{process} is dead")
        connection = open_file(self._path, SimulatedConnection)
        assert isinstance(connection, SimulatedConnection)
        connection.faults = self.faults
        connection.opened = self._open.setdefault(process, {})
        connection.opened[connection] = None
        return connection

    def before(self, operation: str) -> None:
        """The statements fail by themselves."""

    async def commit(
        self, process: Process, inner: Transaction, batch_id: str, now: int, notice: Notice
    ) -> None:
        await inner.commit(batch_id, now, notice)

    def committed(self, batch_id: str) -> bool:
        query = "SELECT 1 FROM batches WHERE id = ?"
        return self._own.execute(query, (batch_id,)).fetchone() is not None

    def synced(self, process: Process) -> bool:
        return all(connection.synced for connection in self._open.get(process, ()))

    def release(self, process: Process) -> None:
        for connection in list(self._open.pop(process, ())):
            connection.close()

    def savepoint(self) -> Restore:
        copy = sqlite3.connect(":memory:")
        self._own.backup(copy)
        return lambda: copy.backup(self._own)

    @property
    def clock(self) -> int:
        if version_of(self._own) == 0:
            return 0
        (clock,) = self._own.execute("SELECT clock FROM meta").fetchone()
        assert isinstance(clock, int)
        return clock

    def _look(self, path: str) -> sqlite3.Connection:
        self._looking.append(open_file(self._path))
        return self._looking[-1]

    async def keeper(self) -> Store:
        if self._keeper is None:
            self._keeper = SqliteStore(PATH, self._runtime, _surroundings(self._look, None))
            await self._keeper.open()
        return self._keeper

    def close(self) -> None:
        for process in list(self._open):
            self.release(process)
        for connection in self._looking:
            connection.close()
        self._own.close()
        self._directory.cleanup()


def _surroundings(
    connect: Callable[[str], sqlite3.Connection],
    neighbours: Callable[[str, Runtime, Callable[[Notice], None]], _Neighbours] | None,
) -> Surroundings:
    return Surroundings(
        make_place=lambda path: f"{path}-run",
        identity=lambda path: (0, 0),
        connect=connect,
        turns=lambda directory, runtime: _Turns(),
        neighbours=neighbours,
    )


class SimulatedConnection(sqlite3.Connection):
    """A connection whose statements fail now and then."""

    faults: StorageFaults
    # Those of its process, for as long as it is open.
    opened: dict[SimulatedConnection, None]
    synced = True
    _reads_only = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA"):
            return self._set(sql)
        word = sql.split(" ", 1)[0]
        if self._reads_only:
            # The ends of a transaction that only reads touch no disk.
            self._meet(SCAN if word in ("SELECT", "WITH") else None)
            return super().execute(sql, parameters)
        self._meet(_OPERATIONS.get(word, OTHER))
        if word == "COMMIT":
            return self._commit()
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        self._meet(SAVE)
        return super().executemany(sql, parameters)

    def close(self) -> None:
        self.opened.pop(self, None)
        super().close()

    def _set(self, sql: str) -> sqlite3.Cursor:
        self._meet(OTHER)
        if sql == "PRAGMA query_only = ON":
            self._reads_only = True
        if sql.startswith(_SYNCHRONOUS):
            self.synced = sql.removeprefix(_SYNCHRONOUS).strip(" =").upper() in _SYNCED
            sql = f"{_SYNCHRONOUS} = OFF"
        return super().execute(sql)

    def _commit(self) -> sqlite3.Cursor:
        happens = self.faults.unclear()
        if happens is None:
            return super().execute("COMMIT")
        if happens:
            super().execute("COMMIT")
        raise _error("SQLITE_IOERR")

    def _meet(self, operation: str | None) -> None:
        name = self.faults.failing(operation) if operation is not None else None
        if name is not None:
            raise _error(name)


def _error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("a fault of the simulated disk")
    error.sqlite_errorname = name
    return error


class _Turns:
    """The disk itself gives the turns; between processes there is nothing left to decide."""

    def __init__(self) -> None:
        self.here = asyncio.Lock()

    async def take(self) -> None:
        await self.here.acquire()

    def give_back(self) -> None:
        self.here.release()


class _Neighbours:
    """Those who have the file open in other processes."""

    def __init__(self, news: News, process: Process, hear: Callable[[Notice], None]) -> None:
        self._news = news
        self._process = process
        self._hear = hear

    def open(self) -> None:
        self._news.join(self._process, self._hear)

    def close(self) -> None:
        self._news.leave(self._process)

    def tell(self, notice: Notice) -> None:
        self._news.tell(self._process, notice)

    def refresh(self) -> None:
        """News always knows who is there."""
