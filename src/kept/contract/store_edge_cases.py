"""Store suite: edges, and the children of a task in pages."""

from __future__ import annotations

from kept.contract.store_samples import NOW, Opens, acquired, births, promise, read, settled, write
from kept.errors import BadRequestError
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_CHILDREN_WALKED, MAX_EDGES_PER_STEP, MAX_PRELOAD_RECORDS
from kept.protocol.records import Promise, Value
from kept.protocol.storage import Changes, ChildPage, Children, Edge, Key, PendingChildren, Reads
from kept.stores.base import Store


class EdgeCases(Opens):
    """Callbacks, listeners, resumes, releases and children."""

    async def test_edges_come_and_go(self) -> None:
        """Writing an edge that is there, or removing one that is not, changes nothing else."""
        a, b = Edge("p", "a"), Edge("p", "b")
        async with self.opened() as store:
            await write(store, births(promise("p"), promise("other")))
            for _ in range(2):
                await write(store, Changes(callbacks={a: True, b: True}, listeners={b: True}))
            loaded = await read(store, Reads(edges={"p", "other"}))
            assert loaded.callbacks == {"p": ["a", "b"], "other": []}
            assert loaded.listeners == {"p": ["b"], "other": []}
            assert loaded.more_edges == set()
            for _ in range(2):
                await write(store, Changes(callbacks={a: False}, listeners={b: False}))
            loaded = await read(store, Reads(edges={"p"}))
            assert loaded.callbacks == {"p": ["b"]}
            assert loaded.listeners == {"p": []}

    async def test_resumes_are_cleared_before_others_come(self) -> None:
        """Of one batch that clears and adds, only what it adds remains."""
        async with self.opened() as store:
            await write(store, births(promise("w"), tasks=(acquired("w", NOW),)))
            await write(store, Changes(resumes={Edge("w", "old"): True, Edge("w", "gone"): True}))
            await write(store, Changes(resumes={Edge("w", "gone"): False}))
            assert (await store.dump("default")).resumes == {Edge("w", "old")}
            await write(store, Changes(resumes_cleared={"w"}, resumes={Edge("w", "new"): True}))
            assert (await store.dump("default")).resumes == {Edge("w", "new")}

    async def test_more_edges_than_one_step_drains(self) -> None:
        """The first MAX_EDGES_PER_STEP by name are loaded, and that there are more is said."""
        names = [f"{number:05}" for number in range(MAX_EDGES_PER_STEP + 1)]
        async with self.opened() as store:
            await write(store, births(promise("p"), promise("exact")))
            changes = Changes(callbacks={Edge("p", name): True for name in reversed(names)})
            changes.listeners = {Edge("exact", name): True for name in names[1:]}
            await write(store, changes)
            loaded = await read(store, Reads(edges={"p", "exact"}))
            assert loaded.callbacks["p"] == names[:MAX_EDGES_PER_STEP]
            assert loaded.listeners["exact"] == names[1:]
            assert loaded.more_edges == {"p"}

    async def test_undrained_promises_are_due(self) -> None:
        """A promise marked as undrained is due until the mark goes."""
        async with self.opened() as store:
            await write(store, births(promise("b"), promise("a")))
            await write(store, Changes(undrained={"a": True, "b": True}))
            assert (await store.due(NOW, 10)).drains == [Key("default", "b"), Key("default", "a")]
            next_due = await store.next_due()
            assert next_due is not None
            assert next_due <= NOW
            await write(store, Changes(undrained={"b": False}))
            assert (await store.due(NOW, 10)).drains == [Key("default", "a")]

    async def test_hundred_thousand_edges(self) -> None:
        """A promise with 100,000 callbacks is filled and drained in pages, each seen once."""
        total = 100 * MAX_EDGES_PER_STEP
        async with self.opened() as store:
            await write(store, births(promise("p")))
            for start in range(0, total, 10_000):
                part = range(start, start + 10_000)
                await write(store, Changes(callbacks={Edge("p", f"w{n}"): True for n in part}))
            seen: set[str] = set()
            for _ in range(total // MAX_EDGES_PER_STEP):
                loaded = await read(store, Reads(edges={"p"}))
                page = loaded.callbacks["p"]
                assert len(page) == MAX_EDGES_PER_STEP
                assert seen.isdisjoint(page)
                seen.update(page)
                await write(store, Changes(callbacks={Edge("p", to): False for to in page}))
            assert len(seen) == total
            assert (await read(store, Reads(edges={"p"}))).callbacks == {"p": []}

    # -- children --------------------------------------------------------------------------------

    async def test_children_released_first(self) -> None:
        """Released promises come in the order of their numbers, then the other children by id:
        by parent or by branch, each once, the task's own promise never."""
        kin = [
            promise("w", tags={tag.PARENT: "w", tag.BRANCH: "w"}),
            promise("w.1", tags={tag.PARENT: "w", tag.BRANCH: "w"}),
            promise("w.2", tags={tag.PARENT: "w"}),
            promise("w.3", tags={tag.BRANCH: "w", tag.PARENT: "elsewhere"}),
            promise("w.4", tags={tag.BRANCH: "w"}),
            promise("w.5", tags={tag.PARENT: "w", tag.BRANCH: "w.5"}),
            promise("awaited"),
            promise("stranger", tags={tag.PARENT: "z"}),
        ]
        numbers = {"w.4": 1, "awaited": 2, "w.2": 3, "never-stored": 4}
        async with self.opened() as store:
            await write(store, births(*kin, tasks=(acquired("w", NOW),)))
            await write(store, Changes(releases={Edge("w", id): n for id, n in numbers.items()}))
            loaded = await read(store, Reads(children={"w"}))
            page = loaded.children["w"]
            assert _ids(page.released) == ["w.4", "awaited", "w.2"]
            assert _ids(page.others) == ["w.1", "w.3", "w.5"]
            assert page.more is None
            assert (
                set(loaded.promises)
                == set(loaded.tasks)
                == {*_ids(page.released), "w.1", "w.3", "w.5"}
            )

    async def test_children_in_pages(self) -> None:
        """Pages of any size, each from the cursor of the last, give all children once, in order."""
        released = [f"r{number}" for number in (3, 1, 2)]
        others = [f"o{number}" for number in range(4)]
        kin = [promise(id, tags={tag.PARENT: "w"}) for id in (*released, *others)]
        changes = births(promise("w"), *kin, tasks=(acquired("w", NOW),))
        changes.releases = {Edge("w", id): number for number, id in enumerate(released)}
        async with self.opened() as store:
            await write(store, changes)
            for limit in range(1, 9):
                pages = await _pages(store, "w", limit)
                assert all(len(p.released) + len(p.others) <= limit for p in pages)
                assert [id for p in pages for id in _ids(p.released)] == released
                assert [id for p in pages for id in _ids(p.others)] == others
            after_o1 = await store.scan_children("default", "w", "o:o1", 10)
            assert (_ids(after_o1.released), _ids(after_o1.others)) == ([], ["o2", "o3"])
            after_r1 = await store.scan_children("default", "w", "r:r1", 10)
            assert (_ids(after_r1.released), _ids(after_r1.others)) == (["r2"], others)

    async def test_children_pages_are_bounded(self) -> None:
        """The first page ends at MAX_PRELOAD_RECORDS; large payloads end it sooner."""
        many = [promise(f"{n:05}", tags={tag.PARENT: "w"}) for n in range(MAX_PRELOAD_RECORDS + 1)]
        heavy = Value(None, "x" * 600_000)
        async with self.opened() as store:
            await write(store, births(promise("w"), *many))
            page = (await read(store, Reads(children={"w"}))).children["w"]
            assert _ids(page.others) == [each.id for each in many[:-1]]
            assert page.more == f"o:{many[-2].id}"
            large = [promise(id, param=heavy, tags={tag.PARENT: "v"}) for id in ("a", "b")]
            await write(store, births(*large))
            assert [_ids(page.others) for page in await _pages(store, "v", 10)] == [["a"], ["b"]]

    async def test_cursor_from_nowhere(self) -> None:
        """A cursor that no store gave is refused as the caller's mistake."""
        async with self.opened() as store:
            try:
                await store.scan_children("default", "w", "what?", 10)
            except BadRequestError:
                return
            raise AssertionError("the cursor was accepted")

    async def test_pending_children_in_pages(self) -> None:
        """Pending ones by id, by the tag of the parent alone; what a transaction saved is seen."""
        tags = {tag.PARENT: "p", tag.BRANCH: "elsewhere"}
        ids = [f"c{number}" for number in range(7)]
        done = settled(promise("c3", tags=tags))
        kin = births(
            promise("p", tags={tag.PARENT: "p"}),
            *(promise(id, tags=tags) for id in reversed(ids)),
            promise("branch", tags={tag.BRANCH: "p"}),
            promise("other", tags={tag.PARENT: "p2"}),
        )
        async with self.opened() as store:
            await write(store, kin)
            await write(store, Changes(promises={"c3": done}))
            found: list[str] = []
            after: str | None = ""
            while after is not None:
                wanted = ChildPage("p", after, 2)
                loaded = await read(store, Reads(pending_children={wanted}))
                page = loaded.pending_children[wanted]
                assert len(page.ids) <= 2
                assert all(loaded.promises[id] == promise(id, tags=tags) for id in page.ids)
                found += page.ids
                after = page.more
            assert found == ["c0", "c1", "c2", "c4", "c5", "c6"]
            none = ChildPage("nobody", "", 9)
            loaded = await read(store, Reads(pending_children={none}))
            assert loaded.pending_children == {none: PendingChildren([])}
            async with store.transaction() as transaction:
                late = promise("c1a", tags=tags)
                await transaction.save("default", births(late))
                await transaction.save(
                    "default", Changes(promises={"c1": settled(kin.promises["c1"])})
                )
                wanted = ChildPage("p", "c0", 2)
                loaded = await transaction.load("default", Reads(pending_children={wanted}), NOW)
                assert loaded.pending_children[wanted].ids == ["c1a", "c2"]
                assert loaded.promises["c1a"] == late

    async def test_a_page_of_pending_children_is_a_bounded_walk(self) -> None:
        """However many settled ones lie between them, a page ends, and the next goes on."""
        tags = {tag.PARENT: "p"}
        count = MAX_CHILDREN_WALKED + 500
        each = [promise(f"c{number:05}", tags=tags) for number in range(count)]
        async with self.opened() as store:
            await write(store, births(promise("p"), *(settled(child) for child in each[:-1])))
            await write(store, births(each[-1]))
            last = each[MAX_CHILDREN_WALKED - 1].id
            for after, expected in (("", ([], last)), (last, ([each[-1].id], None))):
                wanted = ChildPage("p", after, 500)
                loaded = await read(store, Reads(pending_children={wanted}))
                assert loaded.pending_children[wanted] == expected


def _ids(promises: list[Promise]) -> list[str]:
    return [promise.id for promise in promises]


async def _pages(store: Store, task_id: str, limit: int) -> list[Children]:
    pages = [await store.scan_children("default", task_id, None, limit)]
    while pages[-1].more is not None:
        pages.append(await store.scan_children("default", task_id, pages[-1].more, limit))
    return pages
