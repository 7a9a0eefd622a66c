"""Store suite: the promises of an origin, what names them, and removing them (protocol B6)."""

from __future__ import annotations

from kept.contract.store_samples import (
    NOW,
    ODD_IDS,
    Opens,
    births,
    execute,
    jobs,
    letter,
    promise,
    queued,
    read,
    settled,
    unblock,
    write,
)
from kept.protocol import tags as tag
from kept.protocol.entries import Entry, EntryKey, EntryKind, Mailbox, Retention
from kept.protocol.records import OutboxEntry, Promise, PromiseState, Value
from kept.protocol.storage import (
    Changes,
    Due,
    DueEntry,
    Dump,
    Edge,
    EntryPrefix,
    Head,
    Members,
    Notice,
    Reads,
    TreePage,
)
from kept.stores.base import Store


def child(id: str, origin: str = "root", parent: str = "root", **tags: str) -> Promise:
    """A promise of a tree."""
    return promise(id, tags={tag.ORIGIN: origin, tag.PARENT: parent, **tags})


def tree_entry(origin: str, due_at: int) -> Entry:
    return Entry(EntryKey(EntryKind.RETENTION, origin), Retention(), due_at)


async def page(store: Store, origin: str, before: str | None = None, limit: int = 99) -> Members:
    """A page of a tree."""
    wanted = TreePage(origin, before, limit)
    return (await read(store, Reads(trees={wanted}))).trees[wanted]


async def ids(
    store: Store, origin: str, before: str | None = None, limit: int = 99
) -> tuple[list[str], bool]:
    found = await page(store, origin, before, limit)
    return [member.id for member in found.members], found.more


async def named(store: Store) -> list[str]:
    """Those of the tree `root` that something names."""
    found = await page(store, "root")
    return [member.id for member in found.members if member.named]


class TreeCases(Opens):
    """Found by origin, looked at, removed."""

    async def test_a_tree_comes_from_the_youngest_to_the_root(self) -> None:
        """In the order of birth, not of ids, in pages; of other origins none."""
        async with self.opened() as store:
            await write(store, births(child("z"), promise("root"), promise("other")))
            await write(store, births(child("a"), child("x", "other"), child("m", parent="a")))
            await write(store, births(child("mine")), tenant="two")
            assert await ids(store, "root") == (["m", "a", "z", "root"], False)
            assert await ids(store, "root", None, 4) == (["m", "a", "z", "root"], False)
            assert await ids(store, "root", None, 3) == (["m", "a", "z"], True)
            assert await ids(store, "root", "a", 1) == (["z"], True)
            assert await ids(store, "root", "z") == (["root"], False)
            assert await ids(store, "root", "root") == ([], False)
            assert await ids(store, "root", "gone", 1) == (["m"], True)
            assert await ids(store, "other") == (["x", "other"], False)
            assert await ids(store, "z") == ([], False)

    async def test_an_origin_may_not_be_there(self) -> None:
        """Or belong to another tree, or say that it is its own."""
        own = promise("own", tags={tag.ORIGIN: "own"})
        async with self.opened() as store:
            await write(store, births(child("a", "absent"), child("b", "a"), own))
            assert await ids(store, "absent") == (["a"], False)
            assert await ids(store, "a") == (["b"], False)
            assert await ids(store, "own") == (["own"], False)

    async def test_what_is_known_of_a_member(self) -> None:
        """State, times, tags, its task's version, whether its parent is pending."""
        root, done = promise("root"), child("done")
        task = queued("job")
        job = child("job", parent="done", **{tag.TARGET: "queue://q"})
        by_branch = promise("branch", tags={tag.ORIGIN: "root", tag.BRANCH: "root"})
        itself = promise("self", tags={tag.ORIGIN: "root", tag.PARENT: "self", tag.BRANCH: "no"})
        async with self.opened() as store:
            await write(store, births(root, done, job, by_branch, itself, tasks=(task,)))
            await write(store, Changes(promises={"done": settled(done, Value(data="v"))}))
            found = {member.id: member for member in (await page(store, "root")).members}
            assert found["done"][1:] == (
                *(PromiseState.RESOLVED, done.timeout_at, done.created_at, NOW + 1),
                *(done.tags, None, False, True),
            )
            assert found["job"][1:] == (
                *(PromiseState.PENDING, job.timeout_at, job.created_at, None),
                *(job.tags, 0, False, False),
            )
            pending = {id: member.parent_pending for id, member in found.items()}
            assert pending == {
                "root": False,
                "done": True,
                "job": False,
                "branch": True,
                "self": False,
            }

    async def test_what_names_a_member(self) -> None:
        """Edges at either end, messages, dead letters: of this tenant, and as long as they are."""
        each = [*(child(id) for id in ("a", "b")), promise("root"), promise("far")]
        message: OutboxEntry
        ways: list[tuple[Changes, Changes]] = []
        for edge in (Edge("a", "x"), Edge("far", "a")):
            ways.append((Changes(callbacks={edge: True}), Changes(callbacks={edge: False})))
            ways.append((Changes(resumes={edge: True}), Changes(resumes={edge: False})))
        listener = Edge("a", "poll://any@g")
        ways.append((Changes(listeners={listener: True}), Changes(listeners={listener: False})))
        for message in (execute("a", NOW), unblock("a", NOW)):
            gone = Changes(outbox={message.key: None})
            ways.append((Changes(outbox={message.key: message}), gone))
        ways.append((Changes(dead_letters={"a": letter("a")}), Changes(dead_letters={"a": None})))
        async with self.opened() as store:
            await write(store, births(*each))
            await write(store, births(*each), tenant="two")
            for comes, goes in ways:
                await write(store, comes, tenant="two")
                assert await named(store) == []
                await write(store, comes)
                assert await named(store) == ["a"]
                await write(store, goes)
                assert await named(store) == []

    async def test_removing_takes_all_that_hangs_on_it(self) -> None:
        """Task, payloads, edges, releases, marks; of others nothing."""
        keeps = jobs(queued("other"))
        keeps.releases = {Edge("other", "root"): 1}
        async with self.opened() as store:
            await write(store, keeps)
            before = await store.dump("default")
            changes = births(
                promise("root", at=NOW, param=Value({"a": "b"}, "param")), tasks=(queued("root"),)
            )
            changes.callbacks = {Edge("root", "other"): True}
            changes.listeners = {Edge("root", "poll://any@g"): True}
            changes.resumes = {Edge("root", "other"): True}
            changes.releases = {Edge("root", "other"): 1}
            changes.undrained = {"root": True}
            await write(store, changes)
            done = settled(promise("root", at=NOW), Value(None, "value"))
            await write(store, Changes(promises={"root": done}))
            await write(store, Changes(removed={"root", "never there"}))
            assert await store.dump("default") == before
            assert not await store.due(NOW, 9)
            loaded = await read(store, Reads({"root"}, {"root"}, heads={Head("q"): 9}))
            assert (loaded.promises["root"], loaded.tasks["root"]) == (None, None)
            assert loaded.heads == {Head("q"): ["other"]}
            assert loaded.callbacks == {"root": []}
            counts = await store.queue_counts("default", "q", NOW)
            assert (counts.due, counts.delayed) == (1, 0)

    async def test_removed_and_born_again(self) -> None:
        """In one batch, which the transaction sees before its commit; and nothing comes back."""
        first = births(promise("p", param=Value(None, "old")), tasks=(queued("p"),))
        first.releases = {Edge("p", "x"): 1}
        again = births(promise("p"))
        again.removed = {"p"}
        async with self.opened() as store:
            await write(store, first)
            async with store.transaction() as transaction:
                await transaction.load("default", Reads({"p"}), NOW)
                await transaction.save("default", again)
                loaded = await transaction.load("default", Reads({"p"}), NOW)
                assert (loaded.promises["p"], loaded.tasks["p"]) == (promise("p"), None)
                await transaction.commit("again", NOW, Notice())
            assert await store.dump("default") == Dump(promises={"p": promise("p")})

    async def test_a_removal_that_is_not_committed(self) -> None:
        """All is where it was, also in the order of births."""
        async with self.opened() as store:
            for id in ("root", "root.b", "root.a", "root.c"):
                await write(store, births(child(id) if id != "root" else promise(id)))
            before = await store.dump("default")
            async with store.transaction() as transaction:
                await transaction.save("default", Changes(removed={"root.a", "root.b"}))
                wanted = TreePage("root", None, 9)
                loaded = await transaction.load("default", Reads(trees={wanted}), NOW)
                assert [each.id for each in loaded.trees[wanted].members] == ["root.c", "root"]
            assert await store.dump("default") == before
            assert await ids(store, "root") == (["root.c", "root.a", "root.b", "root"], False)

    async def test_trees_are_due_by_themselves(self) -> None:
        """However many they are, other entries do not stand behind them."""
        trees = [tree_entry(f"t{n}", NOW - n) for n in range(5)]
        box = Entry(EntryKey(EntryKind.MAILBOX, "m"), Mailbox(1), NOW)
        changes = Changes(entries={entry.key: entry for entry in (*trees, box)})
        async with self.opened() as store:
            await write(store, changes)
            assert await store.due(NOW, 2) == Due(
                entries=[DueEntry("default", box.key)],
                trees=[DueEntry("default", trees[4].key), DueEntry("default", trees[3].key)],
            )
            assert await store.next_due() == NOW - 4
            await write(store, Changes(entries={entry.key: None for entry in trees}))
            assert await store.next_due() == NOW

    async def test_entries_by_the_beginning_of_their_names(self) -> None:
        """Of one kind, in order, no more than wanted, whatever a name is made of."""
        names = [*ODD_IDS, *(f"{id}+" for id in ODD_IDS if len(id) < 999)]
        odd = [Entry(EntryKey(EntryKind.MAILBOX, name), Mailbox(1)) for name in names]
        other = Entry(EntryKey(EntryKind.RETENTION, "a"), Retention())
        changes = Changes(entries={entry.key: entry for entry in (*odd, other)})
        async with self.opened() as store:
            await write(store, changes)
            wanted = {EntryPrefix(EntryKind.MAILBOX, id, 99) for id in (*ODD_IDS, "none")}
            loaded = await read(store, Reads(entry_prefixes=wanted))
            for prefix, keys in loaded.entry_prefixes.items():
                expected = [name for name in names if name.startswith(prefix.prefix)]
                assert [key.name for key in keys] == sorted(expected, key=str.encode)
            first = EntryPrefix(EntryKind.MAILBOX, "a", 2)
            loaded = await read(store, Reads(entry_prefixes={first}))
            assert len(loaded.entry_prefixes[first]) == 2
