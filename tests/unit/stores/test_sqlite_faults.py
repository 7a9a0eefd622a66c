"""What the SQLite store does when the disk or another program is in its way."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from kept.contract.store_samples import NOW, births, fresh_batch, promise, read, write
from kept.errors import StoreBusyError, StoreError, StoreFailedError
from kept.protocol.records import Value
from kept.protocol.storage import Notice, Reads
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore, turns
from kept.stores.sqlite import connection as connections
from kept.stores.sqlite.surroundings import REAL
from kept.stores.sqlite.transaction import SqliteTransaction
from tests.unit.stores.support import sqlite_store

LARGE = Value(None, "x" * 1_000_000)


@contextlib.contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def _somebody_elses_turn(path: Path) -> Iterator[None]:
    """Holds the lock that a process holds while it writes."""
    with open(f"{path}-run/writer", "rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        yield


def _size_of_wal(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def _goes_on(store: SqliteStore, ids: set[str]) -> None:
    """Exactly these promises are stored, and more can be."""
    assert set((await store.dump("default")).promises) == ids
    await write(store, births(promise("later")))
    assert set((await store.dump("default")).promises) == {*ids, "later"}


async def test_full_while_saving(tmp_path: Path) -> None:
    """A disk that is full fails the transaction with what to do, and nothing of it remains."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        await write(store, births(promise("before")))
        assert store._writer is not None
        (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
        store._writer.execute(f"PRAGMA max_page_count = {pages + 10}")
        with pytest.raises(StoreFailedError, match=r"disk is full.*SQLITE_FULL"):
            await write(store, births(promise("p")), births(promise("large", param=LARGE)))
        await _goes_on(store, {"before"})


async def test_full_while_committing(tmp_path: Path) -> None:
    """A commit whose writing fails is answered with an error, was not applied, and the store works
    again as soon as there is room."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path) as store:
        await write(store, births(promise("before")))
        size = _size_of_wal(path)
        with _largest_file(size + 100_000):
            for attempt in range(3):
                with pytest.raises(StoreFailedError, match=r"SQLITE_(IOERR|FULL)"):
                    await write(store, births(promise(f"large{attempt}", param=LARGE)))
        await _goes_on(store, {"before"})


@pytest.mark.parametrize("before_the_error", ["COMMIT", "ROLLBACK", "SELECT 1"])
async def test_a_commit_with_an_error_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_the_error: str
) -> None:
    """An error at the commit is an error only where the batch is not in the file afterwards: what
    was committed all the same is answered as committed."""

    def sync(self: SqliteTransaction) -> None:
        self._connection.execute(before_the_error)
        raise sqlite3.OperationalError("disk I/O error")

    async with sqlite_store(tmp_path / "kept.db") as store:
        with monkeypatch.context() as then:
            then.setattr(SqliteTransaction, "_sync", sync)
            if before_the_error == "COMMIT":
                await write(store, births(promise("p")))
            else:
                with pytest.raises(StoreFailedError, match="disk I/O error"):
                    await write(store, births(promise("p")))
        await _goes_on(store, {"p"} if before_the_error == "COMMIT" else set())


async def test_cancelling_a_commit(tmp_path: Path) -> None:
    """Who is cancelled during the commit leaves after it: the batch is there whole, and the next
    transaction finds the store in order."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        for number in range(20):
            writing = asyncio.ensure_future(write(store, births(promise(f"p{number}"))))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait({writing})
            loaded = await read(store, Reads(objects={f"p{number}"}))
            assert writing.cancelled() or loaded.promises[f"p{number}"] is not None
        await write(store, births(promise("later")))


async def test_another_program_writes(tmp_path: Path) -> None:
    """While a program that does not queue holds the file, the loop goes on; then so does the store."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path) as store:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as theirs:
            theirs.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(write(store, births(promise("p"))))
            done, _ = await asyncio.wait({writing}, timeout=0.05)
            assert not done
            theirs.execute("COMMIT")
            await writing
        await _goes_on(store, {"p"})


async def test_another_program_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file stays locked, the store gives up after a while, and works when it is free."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path) as store:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as theirs:
            theirs.execute("BEGIN IMMEDIATE")
            with monkeypatch.context() as then:
                then.setattr(connections, "MAX_FOREIGN_WAIT_S", 0.05)
                with pytest.raises(StoreBusyError, match="another program"):
                    await write(store, births(promise("p")))
            theirs.execute("COMMIT")
        await _goes_on(store, set())


@pytest.mark.parametrize("waits_again", [False, True])
async def test_the_turn_never_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, waits_again: bool
) -> None:
    """Where another process keeps its turn, the store gives up after a while; nothing is lost when
    the turn comes after that, whether somebody waits for it again or not."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path) as store:
        writing = None
        with _somebody_elses_turn(path):
            with monkeypatch.context() as then:
                then.setattr(turns, "MAX_TURN_WAIT_S", 0.05)
                with pytest.raises(StoreBusyError, match="another process"):
                    await write(store, births(promise("never")))
            if waits_again:
                writing = asyncio.ensure_future(write(store, births(promise("p"))))
                await asyncio.wait({writing}, timeout=0.01)
        if writing is not None:
            await writing
        await _goes_on(store, {"p"} if waits_again else set())


async def test_giving_up_waiting_for_the_turn(tmp_path: Path) -> None:
    """A cancelled wait leaves no lock behind: others and the store itself go on."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path) as store, sqlite_store(path) as other:
        with _somebody_elses_turn(path):
            writing = asyncio.ensure_future(write(store, births(promise("never"))))
            await asyncio.wait({writing}, timeout=0.02)
            writing.cancel()
            await asyncio.wait({writing})
        await write(other, births(promise("p")))
        await _goes_on(store, {"p"})


async def test_old_batch_ids_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch ids of more than an hour ago leave in time, newer ones stay."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        await write(store)
        assert store._writer is not None
        store._writer.execute(
            "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1990) "
            "INSERT INTO batches (id, committed_at) SELECT 'old-' || x, 1 FROM n"
        )
        ids = [fresh_batch() for _ in range(600)]
        for id in ids:
            async with store.transaction() as transaction:
                await transaction.commit(id, NOW, Notice())
        (old,) = store._writer.execute(
            "SELECT count(*) FROM batches WHERE committed_at = 1"
        ).fetchone()
        assert old == 0
        assert all([await store.committed(id) for id in ids])


@pytest.mark.parametrize("statement", ["PRAGMA data_version", "SELECT clock"])
async def test_an_error_right_after_the_begin(tmp_path: Path, statement: str) -> None:
    """A transaction that begins and fails before it is handed out holds nothing: the next one, here
    and elsewhere, begins as if it had not been."""
    failing = 0

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            nonlocal failing
            if failing and sql.startswith(statement):
                failing -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    path = tmp_path / "kept.db"
    real = REAL._replace(connect=lambda path: connections.open_file(path, Connection))
    store = SqliteStore(str(path), SystemRuntime(), real)
    await store.open()
    try:
        failing = 1
        with pytest.raises(StoreFailedError, match="disk I/O error"):
            await write(store, births(promise("never")))
        async with sqlite_store(path) as other:
            await write(other, births(promise("p")))
        await _goes_on(store, {"p"})
    finally:
        await store.close()


async def test_no_connection_for_a_search(tmp_path: Path) -> None:
    """Where the connection for searches cannot be opened, that is the store's error, and the next
    search tries again."""
    connected = 0

    def connect(path: str) -> sqlite3.Connection:
        nonlocal connected
        connected += 1
        # The first two are opened with the store.
        if connected == 3:
            raise sqlite3.OperationalError("unable to open database file")
        return connections.open_file(path)

    store = SqliteStore(str(tmp_path / "kept.db"), SystemRuntime(), REAL._replace(connect=connect))
    await store.open()
    try:
        with pytest.raises(StoreFailedError, match="unable to open"):
            await store.scan_promises("default", None, 1, {})
        assert await store.scan_promises("default", None, 1, {}) == []
    finally:
        await store.close()


async def test_an_error_after_an_error(tmp_path: Path) -> None:
    """A transaction in which something failed refuses to commit what came before."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        await write(store, births(promise("p")))
        async with store.transaction() as transaction:
            await transaction.save("default", births(promise("first")))
            with pytest.raises(StoreError):
                await transaction.save("default", births(promise("p")))
            with pytest.raises(StoreFailedError, match="ended or failed"):
                await transaction.commit(fresh_batch(), NOW, Notice())
        await _goes_on(store, {"p"})
