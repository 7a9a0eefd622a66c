"""Single records, read without waiting for a writer."""

from __future__ import annotations

from kept.protocol.entries import EntryData, EntryKey
from kept.protocol.records import DeadLetter, Promise, Task
from kept.protocol.requests import DeadList
from kept.stores.base import Store


class Lookup:
    """The records of one tenant by their keys: of all that begin with a key, it is the first."""

    def __init__(self, store: Store, tenant: str) -> None:
        self.store = store
        self.tenant = tenant

    async def promise(self, id: str) -> Promise | None:
        found = await self.store.scan_promises(self.tenant, None, 1, {"prefix": id})
        return found[0] if found and found[0].id == id else None

    async def task(self, promise: Promise) -> Task | None:
        """The task of a promise. One without a target has none, and is not looked for."""
        if promise.target is None and not promise.is_timer:
            return None
        found = await self.store.scan_tasks(self.tenant, None, 1, promise.id)
        return found[0][0] if found and found[0][0].id == promise.id else None

    async def entry(self, key: EntryKey) -> EntryData | None:
        found = await self.store.scan_entries(self.tenant, key.kind, None, 1, key.name)
        return found[0].data if found and found[0].key == key else None

    async def dead_letter(self, id: str) -> DeadLetter | None:
        page = await self.store.scan_dead_letters(self.tenant, DeadList(), None, 1, id)
        found = page.letters
        return found[0] if found and found[0].id == id else None
