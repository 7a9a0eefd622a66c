"""Noticing what settles while steps run: then the task is not suspended, so nothing wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from kept.client.connection import call
from kept.protocol import requests as r
from kept.protocol.limits import MAX_WAIT_MS
from kept.protocol.records import PromiseRecord, PromiseState
from kept.protocol.responses import PromiseResult
from kept.sdk.services import Services

# Promises of one run that are waited for at one time; each may hold a connection.
MAX_WATCHED: Final = 32
# Beyond that, and for the clock of the store to pass a timer's deadline: how often to look.
LOOK_SECONDS: Final = 1.0
# A clock that jumps must not let a timer be forgotten.
LONGEST_SLEEP_SECONDS: Final = 60.0
MS: Final = 1_000


class Watch:
    """Waits for pending promises and tells of each that settled; `failed` gets what goes wrong."""

    def __init__(
        self,
        services: Services,
        learned: Callable[[PromiseRecord], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._services = services
        self._learned = learned
        self._failed = failed
        self._watchers: dict[str, asyncio.Task[None]] = {}

    def look_at(self, promises: Iterable[str], timer: PromiseRecord | None) -> None:
        """Watches these from now on, as far as there is room, and the timer that is due next."""
        if timer is not None and timer.id not in self._watchers:
            self._start(timer.id, self._until_due(timer))
        for id in promises:
            if len(self._watchers) >= MAX_WATCHED:
                break
            if id not in self._watchers:
                self._start(id, self._until_settled(id))

    @property
    def full(self) -> bool:
        return len(self._watchers) >= MAX_WATCHED

    def forget(self, id: str) -> None:
        """The code does not wait for that one any more."""
        watcher = self._watchers.pop(id, None)
        if watcher is not None:
            watcher.cancel()

    def stop(self) -> None:
        for watcher in self._watchers.values():
            watcher.cancel()
        self._watchers.clear()

    def _start(self, id: str, work: Coroutine[Any, Any, None]) -> None:
        watcher = self._services.runtime.spawn(work, f"kept-watch-{id}")
        self._watchers[id] = watcher
        watcher.add_done_callback(lambda ended: self._ended(id, ended))

    def _ended(self, id: str, watcher: asyncio.Task[None]) -> None:
        if self._watchers.get(id) is watcher:
            del self._watchers[id]
        if not watcher.cancelled() and (error := watcher.exception()) is not None:
            self._failed(error)

    async def _until_due(self, timer: PromiseRecord) -> None:
        runtime = self._services.runtime
        while (left := (timer.timeout_at - runtime.now_ms()) / MS) > 0:
            await runtime.sleep(min(left, LONGEST_SLEEP_SECONDS))
        await self._until_settled(timer.id, int(LOOK_SECONDS * MS))

    async def _until_settled(self, id: str, wait_ms: int = MAX_WAIT_MS) -> None:
        while True:
            response = await call(self._services.connection, r.PromiseWait(id, wait_ms))
            assert isinstance(response.data, PromiseResult)
            if response.data.promise.state is not PromiseState.PENDING:
                self._learned(response.data.promise)
                return
