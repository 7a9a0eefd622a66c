"""What is next in a bulk operation: found by a scan, done by the machine (protocol B4)."""

from __future__ import annotations

from collections.abc import Sequence

from kept.engine.committer import Item
from kept.machine.background import BulkPart, LookAtEntry
from kept.protocol.entries import Bulk, EntryKey, EntryKind
from kept.protocol.limits import MAX_BULK_LETTERS
from kept.protocol.requests import DeadList
from kept.stores.base import Store


async def with_parts(store: Store, items: Sequence[Item]) -> list[Item]:
    """The items, with the next part of each unfinished bulk operation for the look at it."""
    return [await _with_part(store, item) for item in items]


async def _with_part(store: Store, item: Item) -> Item:
    if not isinstance(item.work, LookAtEntry) or item.work.key.kind is not EntryKind.BULK:
        return item
    part = await _next_part(store, item.tenant, item.work.key)
    return item if part is None else Item(item.tenant, part, item.fixed_now)


async def _next_part(store: Store, tenant: str, key: EntryKey) -> BulkPart | None:
    """None for what is finished. What the scan sees may be old: the machine looks again."""
    # A name sorts before all that begin with it.
    found = await store.scan_entries(tenant, EntryKind.BULK, None, 1, key.name)
    if not found or found[0].key != key or not isinstance(found[0].data, Bulk):
        return None
    bulk = found[0].data
    if bulk.finished_at is not None:
        return None
    wanted = bulk.filter
    until = bulk.started_at + 1
    if wanted.until is not None:
        until = min(until, wanted.until)
    filter = DeadList(wanted.queue, wanted.function, wanted.reason, wanted.since, until)
    page = await store.scan_dead_letters(
        tenant, filter, bulk.cursor, MAX_BULK_LETTERS, wanted.prefix or ""
    )
    return BulkPart(key, bulk.cursor, [letter.id for letter in page.letters], page.after)
