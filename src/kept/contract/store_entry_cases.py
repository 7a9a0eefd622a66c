"""Store suite: entries, the small records by kind and name, and those that are due."""

from __future__ import annotations

from kept.contract.store_samples import NOW, ODD_IDS, Opens, read, write
from kept.protocol.entries import Entry, EntryKey, EntryKind, Lock
from kept.protocol.storage import Changes, DueEntry, Dump, Reads


def lock(name: str, fence: int = 1, due_at: int | None = None) -> Entry:
    """A lock's entry."""
    return Entry(EntryKey(EntryKind.LOCK, name), Lock(fence, "holder", 5, due_at), due_at)


def entries(*each: Entry) -> Changes:
    """Changes that put entries."""
    return Changes(entries={entry.key: entry for entry in each})


class EntryCases(Opens):
    """Put, found, replaced, removed, scanned and due."""

    async def test_entries_by_key(self) -> None:
        """An entry is put, found by its key, replaced whole and removed; absent ones are None."""
        first, second = lock("a"), lock("a", fence=2, due_at=NOW)
        async with self.opened() as store:
            for entry in (first, second):
                await write(store, entries(entry))
                loaded = await read(store, Reads(entries={entry.key}))
                assert loaded.entries == {entry.key: entry}
            for _ in range(2):
                await write(store, Changes(entries={first.key: None}))
                loaded = await read(store, Reads(entries={first.key}))
                assert loaded.entries == {first.key: None}

    async def test_entries_of_any_name(self) -> None:
        """Names are any text, kept apart whatever a database thinks of case and forms."""
        odd = [lock(name, fence=number) for number, name in enumerate(ODD_IDS)]
        async with self.opened() as store:
            await write(store, entries(*odd))
            loaded = await read(store, Reads(entries={entry.key for entry in odd}))
            assert loaded.entries == {entry.key: entry for entry in odd}

    async def test_entries_in_pages(self) -> None:
        """A scan gives a kind's entries by name, beyond the last one, narrowed by a prefix."""
        each = [lock(name) for name in ("a", "b1", "b2", "b3", "c")]
        async with self.opened() as store:
            await write(store, entries(*reversed(each)))
            kind = EntryKind.LOCK
            assert await store.scan_entries("default", kind, None, 9) == each
            assert await store.scan_entries("default", kind, "b1", 2) == each[2:4]
            assert await store.scan_entries("default", kind, None, 9, "b") == each[1:4]
            assert await store.scan_entries("default", kind, "b2", 9, "b") == each[3:4]
            assert await store.scan_entries("other", kind, None, 9) == []

    async def test_due_entries(self) -> None:
        """What is due comes oldest first, within the limit, and no longer once it has changed."""
        late, soon, never = lock("a", due_at=NOW), lock("b", due_at=NOW - 1), lock("c")
        async with self.opened() as store:
            await write(store, entries(late, soon, never))
            assert await store.next_due() == NOW - 1
            assert (await store.due(NOW, 9)).entries == [
                DueEntry("default", soon.key),
                DueEntry("default", late.key),
            ]
            assert (await store.due(NOW, 1)).entries == [DueEntry("default", soon.key)]
            assert (await store.due(NOW - 2, 9)).entries == []
            await write(store, entries(lock("b", due_at=NOW + 5)))
            assert (await store.due(NOW, 9)).entries == [DueEntry("default", late.key)]
            await write(store, Changes(entries={late.key: None}))
            assert await store.next_due() == NOW + 5

    async def test_entries_of_tenants(self) -> None:
        """Two tenants have entries of one key; a reset takes only its own tenant's."""
        mine, theirs = lock("a"), lock("a", fence=7, due_at=NOW)
        async with self.opened() as store:
            await write(store, entries(mine), tenant="one")
            await write(store, entries(theirs), tenant="two")
            assert await store.dump("one") == Dump(entries={mine.key: mine})
            assert (await store.due(NOW, 9)).entries == [DueEntry("two", theirs.key)]
            await write(store, Changes(reset=True), tenant="one")
            assert await store.dump("one") == Dump()
            assert await store.dump("two") == Dump(entries={theirs.key: theirs})
