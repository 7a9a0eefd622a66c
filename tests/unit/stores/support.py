"""SQLite stores for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore
from kept.stores.sqlite.surroundings import ALONE, REAL


@contextlib.asynccontextmanager
async def sqlite_store(path: Path, *, neighbours: bool = True) -> AsyncIterator[SqliteStore]:
    """An open store on the file, closed at the end."""
    store = SqliteStore(str(path), SystemRuntime(), REAL if neighbours else ALONE)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
