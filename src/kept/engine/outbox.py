"""The outbox: messages leave it only after their transport reported success (protocol A6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from kept.engine.alarm import Alarm
from kept.engine.committer import Committer, Item
from kept.engine.config import (
    MAX_MESSAGES_IN_FLIGHT,
    MAX_MESSAGES_PER_LOOK,
    EngineConfig,
)
from kept.engine.returns import Returns
from kept.engine.statistics import Statistics
from kept.errors import StoreError
from kept.machine.background import DeliveredMessage, FailedMessage, TakeMessage
from kept.protocol.addresses import is_http, scheme_of, shown_address
from kept.protocol.codec import encode_ascii
from kept.protocol.entries import Attempt
from kept.protocol.limits import MAX_DELIVERY_ERROR_CHARACTERS
from kept.protocol.messages import execute_message, unblock_message
from kept.protocol.records import MessageKind, OutboxEntry, Promise
from kept.runtime import Runtime
from kept.stores.base import Store
from kept.transports.base import DeliveryFailedError, Transport

log = logging.getLogger("kept.engine")

# A try that has not come to an end by then, longer than a keep-alive, is made again, perhaps by
# another process.
TRY_MS: Final = 30_000
# Whenever a worker or a server leaves, thousands of messages fail for once; that is no news.
REPORTED_TRIES: Final = 4
FIRST_BACKOFF_MS: Final = 500
MAX_BACKOFF_MS: Final = 60_000


class Outbox:
    """Takes due messages whose transport can reach them, and hands them over."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        committer: Committer,
        transports: Sequence[Transport],
        config: EngineConfig,
        statistics: Statistics,
        returns: Returns,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._committer = committer
        self._by_scheme = {scheme: t for t in transports for scheme in t.schemes}
        self._transports = transports
        self._config = config
        self._statistics = statistics
        self._returns = returns
        self._alarm = Alarm()
        self._task: asyncio.Task[None] | None = None
        self._deliveries: dict[asyncio.Task[None], None] = {}
        self._stopping = False
        self.paused = False

    def start(self) -> None:
        self._task = self._runtime.spawn(self._run(), "kept-outbox")

    async def stop(self) -> None:
        """Lets go of deliveries in flight: their messages are still in the outbox."""
        self._stopping = True
        self._alarm.ring()
        if self._task is not None:
            await self._task
            self._task = None
        for delivery in list(self._deliveries):
            delivery.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    def look(self) -> None:
        """There may be something to send: a message was put, or a receiver connected."""
        self._alarm.ring()

    async def _run(self) -> None:
        wait: float | None = 0.0
        while not self._stopping:
            await self._alarm.wait(wait)
            try:
                wait = await self._send_due()
            except StoreError as error:
                log.error("looking for messages failed, trying again: %s", error)
                wait = self._config.repair_ms / 1_000

    async def _send_due(self) -> float:
        """Starts what is due; answers after how many seconds to look again."""
        repair = self._config.repair_ms / 1_000
        room = min(MAX_MESSAGES_IN_FLIGHT - len(self._deliveries), MAX_MESSAGES_PER_LOOK)
        channels = sorted({channel for t in self._transports for channel in t.channels()})
        if self.paused or self._stopping or not channels or room <= 0:
            return repair
        now = self._committer.now_ms()
        found = await self._store.scan_outbox(now, room, channels)
        if found:
            # There may be more, unless nothing can be committed just now.
            return 0.0 if await self._take(found, now) else repair
        next_at = await self._store.next_message(channels)
        if next_at is None:
            return repair
        return min(self._committer.seconds_until(next_at), repair)

    async def _take(self, found: list[tuple[str, OutboxEntry, Promise]], now: int) -> bool:
        """Reserves messages in one commit and starts their delivery; whether that was possible."""
        items = [Item(tenant, TakeMessage(entry.key, now + TRY_MS)) for tenant, entry, _ in found]
        await self._committer.apply(items)
        for item, (tenant, _, promise) in zip(items, found, strict=True):
            if isinstance(item.outcome, OutboxEntry):
                work = self._deliver(tenant, item.outcome, promise)
                delivery = self._runtime.spawn(work, f"kept-deliver-{item.outcome.key.id}")
                self._deliveries[delivery] = None
                delivery.add_done_callback(self._delivery_ended)
        return not any(item.refused for item in items)

    def _delivery_ended(self, delivery: asyncio.Task[None]) -> None:
        was_full = len(self._deliveries) >= MAX_MESSAGES_IN_FLIGHT
        self._deliveries.pop(delivery, None)
        if was_full:
            self._alarm.ring()
        if not delivery.cancelled() and (error := delivery.exception()) is not None:
            log.error("a delivery broke off; its message is tried again", exc_info=error)

    async def _deliver(self, tenant: str, entry: OutboxEntry, promise: Promise) -> None:
        step: DeliveredMessage | FailedMessage
        if entry.key.kind is MessageKind.EXECUTE:
            pause = self._returns.pause_seconds(tenant, entry.key.id)
            if pause > 0:
                await self._runtime.sleep(pause)
        began = self._runtime.monotonic()
        try:
            await self._hand_over(tenant, entry, promise)
        except DeliveryFailedError as error:
            self._statistics.messages_failed += 1
            level = logging.INFO if entry.tries >= REPORTED_TRIES else logging.DEBUG
            log.log(level, "no delivery to %s, try %d: %s", entry.address, entry.tries, error)
            due_at = self._committer.now_ms() + backoff_ms(entry.tries)
            attempt = self._attempt(entry, began, str(error), due_at)
            step = FailedMessage(entry.key, entry.version, due_at, attempt)
        else:
            self._statistics.messages_sent += 1
            attempt = self._attempt(entry, began)
            step = DeliveredMessage(entry.key, entry.version, attempt, entry.due_at)
        await self._committer.apply([Item(tenant, step)])

    def _attempt(
        self, entry: OutboxEntry, began: float, error: str | None = None, next_at: int | None = None
    ) -> Attempt | None:
        """What is remembered of a try to deliver a webhook."""
        if entry.key.kind is not MessageKind.UNBLOCK or not is_http(entry.address):
            return None
        took = round((self._runtime.monotonic() - began) * 1_000)
        text = None if error is None else error[:MAX_DELIVERY_ERROR_CHARACTERS]
        return Attempt(shown_address(entry.address), entry.tries, took, text, next_at)

    async def _hand_over(self, tenant: str, entry: OutboxEntry, promise: Promise) -> None:
        transport = self._by_scheme.get(scheme_of(entry.address) or "")
        if transport is None or not transport.reachable(entry.address, tenant):
            raise DeliveryFailedError("nobody is connected there")
        if entry.key.kind is MessageKind.EXECUTE:
            message = execute_message(entry, self._config.server_url)
        else:
            message = unblock_message(promise.record())
        await transport.deliver(entry.address, encode_ascii(message), tenant, entry.key.kind)


def backoff_ms(tries: int) -> int:
    """How long to wait after so many failed tries."""
    return min(FIRST_BACKOFF_MS << min(tries - 1, 16), MAX_BACKOFF_MS)
