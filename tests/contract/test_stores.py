"""Every store against the one contract."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from kept.contract.store_suite import StoreSuite
from kept.protocol.storage import Notice
from kept.runtime import SystemRuntime
from kept.stores.base import Store
from kept.stores.memory import MemoryStore
from kept.stores.sqlite import SqliteStore
from kept.stores.sqlite.surroundings import ALONE

T = TypeVar("T")


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


class _InlineRuntime(SystemRuntime):
    """Without threads, as a simulation has it."""

    async def run_blocking(self, work: Callable[[], T]) -> T:
        return work()


class TestSqliteInline(StoreSuite):
    """A file, with everything on the loop, as a simulation runs it."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory, "kept.db"))
            store = SqliteStore(path, _InlineRuntime(), ALONE)
            await store.open()
            try:
                yield store
            finally:
                await store.close()


class _TwoOnOneFile:
    """Two stores on one file, used in turn: neither may rely on what it did itself before."""

    def __init__(self, *stores: SqliteStore) -> None:
        self.on_notice: Callable[[Notice], None] | None = None
        self._all = stores
        self._stores = itertools.cycle(stores)

    async def open(self) -> None:
        for store in self._all:
            await store.open()

    async def close(self) -> None:
        for store in self._all:
            await store.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._stores), name)


class TestSqliteShared(StoreSuite):
    """Two open stores on one file, each call to the other one."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory, "kept.db"))
            store = _TwoOnOneFile(*(SqliteStore(path, SystemRuntime()) for _ in range(2)))
            await store.open()
            try:
                yield store
            finally:
                await store.close()
