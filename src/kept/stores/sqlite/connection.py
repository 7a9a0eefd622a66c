"""Connections to the file: how they are set, which file is refused, how a transaction begins."""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from kept.errors import StoreFailedError
from kept.runtime import Runtime
from kept.stores.sqlite.faults import is_busy, translated

# "kept" in the file's header: what tells our files from other programs' databases.
APPLICATION_ID: Final = 0x6B657074
OLDEST_SQLITE: Final = (3, 35, 0)

CHECKPOINT_PAGES: Final = 10_000
MAX_WAL_BYTES_KEPT: Final = 64 * 1_048_576
WRITER_CACHE_KIB: Final = 65_536
READER_CACHE_KIB: Final = 8_192
CACHED_STATEMENTS: Final = 256

# Readers wait for nobody, except while another process repairs the log after a crash.
READER_WAIT_MS: Final = 100
# How long to try while another program, one that does not queue for its turn, holds the file.
MAX_FOREIGN_WAIT_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.001
LONGEST_PAUSE_S: Final = 0.05

# SQLite's shared memory and locks do not work across machines: the file would be damaged.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "davfs"),
        *("glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"),
        *("lustre", "beegfs", "gpfs", "orangefs"),
    )
)


def open_file(path: str, kind: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """A connection that never waits by itself, because a wait would stop the loop."""
    return sqlite3.connect(
        path,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=CACHED_STATEMENTS,
        factory=kind,
    )


def _set(
    connection: sqlite3.Connection, *settings: str, cache_kib: int = READER_CACHE_KIB
) -> sqlite3.Connection:
    """Runs PRAGMAs on a new connection."""
    try:
        for setting in (f"cache_size = -{cache_kib}", "temp_store = MEMORY", *settings):
            connection.execute(f"PRAGMA {setting}")
    except sqlite3.Error:
        # A damaged file fails here first, and nobody else can close what is not returned.
        connection.close()
        raise
    return connection


def as_reader(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Sets a new connection so that it cannot write."""
    return _set(connection, "query_only = ON", f"busy_timeout = {READER_WAIT_MS}")


def as_writer(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Sets a new connection so that each commit is on the disk before it returns."""
    return _set(
        connection,
        "synchronous = FULL",
        "foreign_keys = OFF",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"journal_size_limit = {MAX_WAL_BYTES_KEPT}",
        cache_kib=WRITER_CACHE_KIB,
    )


def check_place(path: str) -> None:
    """Refuses what cannot hold a database, with the reason."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(str(part) for part in OLDEST_SQLITE)
        raise StoreFailedError(
            f"this Python has SQLite {sqlite3.sqlite_version}, kept needs {wanted} or newer"
        )
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise StoreFailedError(f"opening {path}: there is no directory {directory}; create it")
    kind = file_system_of(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreFailedError(
            f"opening {path}: it is on a network file system ({kind}), where SQLite's locks do not "
            "work; use a local disk, or one server that the others reach over HTTP"
        )


def identity_of(path: str) -> tuple[int, int]:
    """What tells a file from another that takes its place."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def check_ours(connection: sqlite3.Connection, path: str) -> None:
    """Refuses a database of another program before anything in it is touched."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application != 0 or objects != 0):
        raise StoreFailedError(
            f"opening {path}: it is a SQLite database, but not one of kept's; give another path"
        )


def file_system_of(path: str, mounts: str = "/proc/mounts") -> str | None:
    """The type of the file system that holds `path`, as Linux names it; None where unknown."""
    try:
        with open(mounts, encoding="utf-8", errors="replace") as lines:
            table = [line.split(" ") for line in lines]
    except OSError:
        return None
    place = os.path.realpath(path)
    best, kind = "", None
    for fields in table:
        if len(fields) < 3:
            continue
        mount = fields[1].encode().decode("unicode_escape")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        # Of two mounts on one place the later hides the earlier.
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


async def begin(connection: sqlite3.Connection, path: str, runtime: Runtime) -> None:
    """Begins a write transaction. Raises `StoreBusyError` when the file stays locked."""
    await patiently(connection, "BEGIN IMMEDIATE", path, runtime)


async def patiently(
    connection: sqlite3.Connection, statement: str, path: str, runtime: Runtime
) -> None:
    """Runs a statement, again and again while another program holds the file."""
    give_up_at = runtime.monotonic() + MAX_FOREIGN_WAIT_S
    pause = FIRST_PAUSE_S
    while True:
        try:
            connection.execute(statement).fetchall()
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or runtime.monotonic() >= give_up_at:
                with translated("locking", path):
                    raise
        await runtime.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
