"""Every store against the one contract."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from kept.contract.store_suite import StoreSuite
from kept.runtime import SystemRuntime
from kept.stores.base import Store
from kept.stores.memory import MemoryStore
from kept.stores.sqlite import SqliteStore


class TestMemoryStore(StoreSuite):
    """Everything in memory."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        store = MemoryStore(SystemRuntime())
        await store.open()
        try:
            yield store
        finally:
            await store.close()


class TestSqliteStore(StoreSuite):
    """A file, with commits in a thread."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory() as directory:
            store = SqliteStore(str(Path(directory, "kept.db")), SystemRuntime())
            await store.open()
            try:
                yield store
            finally:
                await store.close()


class TestSqliteInline(StoreSuite):
    """A file, with everything on the loop, as a simulation runs it."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory, "kept.db"))
            store = SqliteStore(path, SystemRuntime(), inline_commit=True, neighbours=False)
            await store.open()
            try:
                yield store
            finally:
                await store.close()
