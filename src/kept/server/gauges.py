"""What is read from the store for metrics: at most every few seconds, of a bounded number of queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kept.engine.labels import MAX_LABEL_SETS, OTHER, Labels
from kept.protocol.storage import QueueCounts
from kept.runtime import Runtime
from kept.stores.base import Store
from kept.transports.base import Transport

# A number may be as old as this: whoever asks more often does not make the store work more.
MAX_AGE_SECONDS: Final = 5.0
MAX_LEASES_COUNTED: Final = 100_000


class Gauges(msgspec.Struct):
    """The numbers as they were at one moment."""

    queues: dict[Labels, QueueCounts]
    leases: dict[Labels, int]
    records: dict[str, int]
    now: int
    outbox_lag_seconds: float


class GaugeReader:
    """Reads them, and remembers them for a while."""

    def __init__(self, store: Store, transports: Sequence[Transport], runtime: Runtime) -> None:
        self._store = store
        self._transports = transports
        self._runtime = runtime
        self._latest: Gauges | None = None
        self._read_at = 0.0

    async def read(self) -> Gauges:
        """The numbers. Raises `StoreError`."""
        now = self._runtime.monotonic()
        if self._latest is None or now - self._read_at >= MAX_AGE_SECONDS:
            self._latest = await self._fresh()
            self._read_at = now
        return self._latest

    async def _fresh(self) -> Gauges:
        now = self._runtime.now_ms()
        queues: dict[Labels, QueueCounts] = {
            (tenant, queue): await self._store.queue_counts(tenant, queue, now)
            for tenant, queue in await self._store.queue_names(MAX_LABEL_SETS)
        }
        leases = bounded(await self._store.worker_leases(MAX_LEASES_COUNTED))
        records = await self._store.counts()
        return Gauges(queues, leases, records, now, await self._lag_seconds(now))

    async def _lag_seconds(self, now: int) -> float:
        channels = sorted({channel for t in self._transports for channel in t.channels()})
        due_at = await self._store.next_message(channels)
        return 0.0 if due_at is None else max(now - due_at, 0) / 1_000


def bounded(leases: dict[str, int]) -> dict[Labels, int]:
    """The workers that hold most by name, the others together."""
    in_order = sorted(leases.items(), key=lambda item: (-item[1], item[0]))
    named: dict[Labels, int] = {(pid,): count for pid, count in in_order[:MAX_LABEL_SETS]}
    rest = sum(count for _, count in in_order[MAX_LABEL_SETS:])
    return named | {(OTHER,): rest} if rest else named
