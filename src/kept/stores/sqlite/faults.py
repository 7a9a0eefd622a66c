"""What SQLite's errors mean to a user, and what to do about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kept.errors import StoreBusyError, StoreError, StoreFailedError

_REMEDIES: Final = (
    ("SQLITE_FULL", "the disk is full; free some space and try again"),
    ("SQLITE_IOERR_SHMSIZE", "there is no room for the log's index; free some space and try again"),
    ("SQLITE_IOERR", "the disk failed to read or write; look at the system's log"),
    ("SQLITE_CORRUPT", "the file is damaged; restore it from a backup"),
    ("SQLITE_NOTADB", "the file is not a database; give another path, or restore it"),
    (
        "SQLITE_READONLY",
        "it cannot be written to; look at the owner and permissions of the file and of those beside "
        "it, and whether its disk is mounted read-only",
    ),
    ("SQLITE_CANTOPEN", "the file cannot be opened; look at its directory and permissions"),
    ("SQLITE_PERM", "access is not permitted; look at the file's owner and permissions"),
    ("SQLITE_TOOBIG", "a record is larger than SQLite's limit"),
)


def error_name(error: sqlite3.Error) -> str:
    """SQLite's own name for it, such as SQLITE_FULL."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the file, so that trying again makes sense."""
    return error_name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def store_error(error: sqlite3.Error, doing: str, path: str) -> StoreError:
    """The exception for an error of SQLite met while `doing` something to the file at `path`."""
    name = error_name(error)
    if is_busy(error):
        return StoreBusyError(f"{doing} {path}: it stays locked by another program ({name})")
    for start, remedy in _REMEDIES:
        if name.startswith(start):
            return StoreFailedError(f"{doing} {path}: {remedy} ({name})")
    return StoreFailedError(f"{doing} {path} failed: {error} ({name})")


@contextmanager
def translated(doing: str, path: str) -> Iterator[None]:
    """Turns SQLite's errors into the store's."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error, doing, path) from error
