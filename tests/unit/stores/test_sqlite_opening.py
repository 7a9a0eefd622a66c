"""Which files the SQLite store opens, how it brings them up to date, and what it says otherwise."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from kept.contract.store_samples import NOW, births, promise, write
from kept.errors import StoreError, StoreFailedError, StoreVersionError
from kept.protocol import tags as tag
from kept.protocol.entries import EntryKind, Retention
from kept.protocol.limits import DEFAULT_RETENTION_MS
from kept.protocol.storage import Changes
from kept.stores.sqlite import connection as connections
from kept.stores.sqlite import schema
from kept.stores.sqlite import store as store_module
from tests.unit.stores.support import sqlite_store


def _schema_of(path: Path) -> list[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        return schema.schema_of(file)


async def test_settings(tmp_path: Path) -> None:
    """A file is in WAL mode, marked as ours, at the newest version; commits are synced."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        writer = store._writer
        assert writer is not None
        for pragma, expected in (
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("foreign_keys", 0),
            ("wal_autocheckpoint", connections.CHECKPOINT_PAGES),
            ("application_id", connections.APPLICATION_ID),
            ("user_version", len(schema.migrations())),
        ):
            assert writer.execute(f"PRAGMA {pragma}").fetchone() == (expected,), pragma


async def test_readers_cannot_write(tmp_path: Path) -> None:
    """Scans run on a connection that refuses to write."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        assert store._reader is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store._reader.execute("DELETE FROM promises")


async def test_migrating_leads_to_the_fresh_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From every version that ever was, opening leads to the schema of a fresh file, and keeps the
    records. The scripts are the real ones and one more, so that there is always a step to take."""
    one_more = (
        "ALTER TABLE batches ADD COLUMN colour TEXT;\nCREATE INDEX by_colour ON batches (colour);"
    )
    scripts = [*schema.migrations(), one_more]
    monkeypatch.setattr(store_module, "migrations", lambda: scripts)
    async with sqlite_store(tmp_path / "fresh.db"):
        pass
    fresh = _schema_of(tmp_path / "fresh.db")
    assert ("index", "by_colour") in {(kind, name) for kind, name, _ in fresh}
    for version in range(1, len(scripts)):
        path = tmp_path / f"v{version}.db"
        with monkeypatch.context() as then:
            then.setattr(store_module, "migrations", lambda: scripts[:version])  # noqa: B023
            async with sqlite_store(path) as store:
                await write(store, births(promise("p")))
        assert _schema_of(path) != fresh
        async with sqlite_store(path) as store:
            assert set((await store.dump("default")).promises) == {"p"}
        assert _schema_of(path) == fresh


async def test_what_is_in_an_older_file_leaves_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tree of a file from before retention is looked at once, a week after its latest
    settlement; and promises are counted right, whatever is removed."""
    child = promise("root.1", tags={tag.ORIGIN: "root"})
    with monkeypatch.context() as then:
        then.setattr(store_module, "migrations", lambda: schema.migrations()[:3])
        async with sqlite_store(tmp_path / "kept.db") as store:
            assert store._writer is not None
            for number, each in enumerate((promise("root"), child, promise("alone"))):
                await write(store, births(each))
                store._writer.execute(
                    "UPDATE promises SET state = 'resolved', settled_at = ? WHERE id = ?",
                    (NOW + number, each.id),
                )
    async with sqlite_store(tmp_path / "kept.db") as store:
        entries = await store.scan_entries("default", EntryKind.RETENTION, None, 9)
        week = DEFAULT_RETENTION_MS
        assert [(e.key.name, e.data, e.due_at) for e in entries] == [
            ("alone", Retention(), NOW + 2 + week),
            ("root", Retention(), NOW + 1 + week),
        ]
        assert (await store.counts())["promises"] == 3
        await write(store, Changes(removed={"root.1"}))
        assert (await store.counts())["promises"] == 2
        await write(store, Changes(reset=True))
        assert (await store.counts())["promises"] == 0


async def test_a_failed_migration_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that fails half way leaves version and schema as they were."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path):
        pass
    before = _schema_of(path)
    broken = "CREATE TABLE half (a);\nCREATE TABLE promises (a);"
    with monkeypatch.context() as then:
        then.setattr(store_module, "migrations", lambda: [*schema.migrations(), broken])
        with pytest.raises(StoreFailedError, match="promises already exists"):
            async with sqlite_store(path):
                pass
    assert _schema_of(path) == before
    async with sqlite_store(path) as store:
        await store.ping()


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """A file of a newer version is refused untouched, with what to do."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreVersionError, match=r"schema 999.*upgrade kept"):
        async with sqlite_store(path):
            pass
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (999,)


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """A SQLite file that is not ours is refused, and not changed by the attempt."""
    path = tmp_path / "theirs.db"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(StoreFailedError, match="not one of kept's"):
        async with sqlite_store(path):
            pass
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_ours(tmp_path: Path) -> None:
    """A file of no bytes, as `touch` or a temporary name leaves it, is filled."""
    path = tmp_path / "kept.db"
    path.touch()
    async with sqlite_store(path) as store:
        await store.ping()


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """Text under the name of the database is refused, with what to do, and kept."""
    path = tmp_path / "kept.db"
    path.write_text("not a database\n" * 100)
    with pytest.raises(StoreFailedError, match="not a database"):
        async with sqlite_store(path):
            pass
    assert path.read_text() == "not a database\n" * 100


async def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """A file whose pages were overwritten gives a clear error, never a traceback of another kind."""
    path = tmp_path / "kept.db"
    async with sqlite_store(path) as store:
        for start in range(0, 2_000, 500):
            await write(store, births(*(promise(f"p{n}") for n in range(start, start + 500))))
    content = bytearray(path.read_bytes())
    content[4_096:] = b"\xa5" * (len(content) - 4_096)
    path.write_bytes(content)
    with pytest.raises(StoreFailedError, match=r"damaged.*backup|not a database"):
        async with sqlite_store(path) as store:
            await store.dump("default")


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A directory that is not there is not made behind the user's back."""
    with pytest.raises(StoreFailedError, match="no directory"):
        async with sqlite_store(tmp_path / "none" / "kept.db"):
            pass


async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the mount table says NFS, opening is refused with the reason."""
    monkeypatch.setattr(connections, "file_system_of", lambda path: "nfs4")
    with pytest.raises(StoreFailedError, match=r"network file system \(nfs4\)"):
        async with sqlite_store(tmp_path / "kept.db"):
            pass
    assert not (tmp_path / "kept.db").exists()


def test_the_innermost_mount_counts(tmp_path: Path) -> None:
    """The type is that of the longest mount point above the file, the last of several there;
    blanks in names are escaped in the table; a common beginning of names is not enough."""
    inner = tmp_path / "a b"
    inner.mkdir()
    table = tmp_path / "mounts"
    escaped = str(inner).replace(" ", "\\040")
    table.write_text(
        f"disk / ext4 rw 0 0\nserver:/x {escaped} ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n"
        f"server:/y {tmp_path}/a cifs rw 0 0\nshort\n"
    )
    assert connections.file_system_of(str(inner / "kept.db"), str(table)) == "nfs4"
    assert connections.file_system_of(str(tmp_path / "kept.db"), str(table)) == "ext4"
    assert connections.file_system_of("/kept.db", str(tmp_path / "none")) is None


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Using a store that is not open is an error of the store's kind."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        pass
    with pytest.raises(StoreError, match="not open"):
        await store.ping()
    with pytest.raises(StoreError, match="not open"):
        async with store.transaction():
            pass


def test_statements_are_split_as_sqlite_reads_them() -> None:
    """A migration's statements are found where they end, not at each semicolon in a text."""
    script = (
        "CREATE TABLE a (\n  b TEXT DEFAULT ';'\n);\n-- a; comment\nINSERT INTO a VALUES ('x;y');\n"
    )
    first, second = schema.statements_of(script)
    assert first.startswith("CREATE TABLE a (")
    assert second.endswith("INSERT INTO a VALUES ('x;y');")
