"""Store suite: scans, and how tenants are kept apart."""

from __future__ import annotations

from kept.contract.store_samples import (
    NOW,
    Opens,
    births,
    execute,
    jobs,
    letter,
    promise,
    queued,
    read,
    schedule,
    write,
)
from kept.protocol import tags as tag
from kept.protocol.addresses import poll_channel
from kept.protocol.records import Delivery, Task, TaskState
from kept.protocol.requests import DeadList
from kept.protocol.storage import Changes, Dump, Edge, Head, Key, Letters, Reads


class ScanCases(Opens):
    """Pages ordered by id."""

    async def test_promises_in_pages(self) -> None:
        """Pages of a scan, each beyond the last id, give everything once, by id."""
        ids = [f"p{number:02}" for number in range(10)]
        async with self.opened() as store:
            await write(store, births(*(promise(id) for id in reversed(ids))))
            found: list[str] = []
            while page := await store.scan_promises("default", found[-1] if found else None, 3, {}):
                assert len(page) <= 3
                found += [each.id for each in page]
            assert found == ids

    async def test_promises_by_column(self) -> None:
        """Origin, parent, branch, function and prefix narrow a scan, alone and together; a promise
        without an origin is its own."""
        kin = births(
            promise("root"),
            promise("a1", tags={tag.ORIGIN: "root", tag.PARENT: "root", tag.FUNCTION: "f"}),
            promise("a2", tags={tag.ORIGIN: "root", tag.PARENT: "a1", tag.BRANCH: "a1"}),
            promise("b1", tags={tag.ORIGIN: "other", tag.PARENT: "root", tag.FUNCTION: "f"}),
            promise("a3", tags={tag.ORIGIN: "a3", tag.BRANCH: "a3"}),
        )
        async with self.opened() as store:
            await write(store, kin)
            for equals, ids in (
                ({"origin": "root"}, ["a1", "a2", "root"]),
                ({"origin": "a3"}, ["a3"]),
                ({"parent": "root"}, ["a1", "b1"]),
                ({"branch": "a1"}, ["a2"]),
                ({"branch": "a3"}, ["a3"]),
                ({"function": "f"}, ["a1", "b1"]),
                ({"prefix": "a"}, ["a1", "a2", "a3"]),
                ({"prefix": "a", "origin": "root"}, ["a1", "a2"]),
                ({"function": "f", "parent": "root", "origin": "other"}, ["b1"]),
                ({"function": "none"}, []),
            ):
                found = await store.scan_promises("default", None, 10, equals)
                assert [each.id for each in found] == ids, equals
                beyond = await store.scan_promises("default", "a1", 10, equals)
                assert [each.id for each in beyond] == [id for id in ids if id > "a1"], equals

    async def test_tasks(self) -> None:
        """Tasks come with their promises, by id, without promises that have none."""
        async with self.opened() as store:
            await write(store, jobs(queued("b"), queued("a"), queued("c")), births(promise("aa")))
            found = await store.scan_tasks("default", None, 2)
            assert [(task.id, of.id) for task, of in found] == [("a", "a"), ("b", "b")]
            found = await store.scan_tasks("default", "b", 2)
            assert [task.id for task, _ in found] == ["c"]
            found = await store.scan_tasks("default", None, 9, prefix="c")
            assert [task.id for task, _ in found] == ["c"]

    async def test_schedules(self) -> None:
        """Schedules by id, beyond one, by prefix."""
        plans = {id: schedule(id, NOW) for id in ("c", "a", "ab")}
        async with self.opened() as store:
            await write(store, Changes(schedules={**plans}))
            assert await store.scan_schedules("default", None, 2) == [plans["a"], plans["ab"]]
            assert await store.scan_schedules("default", "ab", 2) == [plans["c"]]
            assert await store.scan_schedules("default", None, 9, prefix="a") == [
                plans["a"],
                plans["ab"],
            ]

    async def test_dead_letters(self) -> None:
        """Dead letters by id, narrowed by each field; `since` is included, `until` is not."""
        letters = {
            "a": letter("a", queue="x", died_at=NOW),
            "b": letter("b", queue="y", died_at=NOW + 1),
            "c": letter("c", queue="y", reason="other", died_at=NOW + 2),
        }
        async with self.opened() as store:
            await write(store, Changes(dead_letters={**letters}))
            for filter, ids in (
                (DeadList(), "abc"),
                (DeadList(queue="y"), "bc"),
                (DeadList(queue="y", reason="other"), "c"),
                (DeadList(function="f@1"), "abc"),
                (DeadList(function="f"), ""),
                (DeadList(since=NOW + 1), "bc"),
                (DeadList(until=NOW + 1), "a"),
                (DeadList(since=NOW + 1, until=NOW + 2), "b"),
            ):
                found = await store.scan_dead_letters("default", filter, None, 10)
                assert found == Letters([letters[id] for id in ids]), filter
            second = Letters([letters["b"]])
            assert await store.scan_dead_letters("default", DeadList(), None, 9, "b") == second
            second.after = "b"
            assert await store.scan_dead_letters("default", DeadList(), "a", 1) == second

    async def test_dead_letters_are_walked_past_so_far_only(self) -> None:
        """Whether any match or not, and from where it ended a scan goes on; what an index finds at
        once need not be walked to."""
        letters = {
            id: letter(id, queue="rare" if id == "i" else "x", reason="rare" if id == "i" else "r")
            for id in "abcdefghij"
        }
        async with self.opened() as store:
            await write(store, Changes(dead_letters={**letters}))
            for filter in (DeadList(reason="rare"), DeadList(queue="rare", reason="rare")):
                after: str | None = None
                found: list[str] = []
                for _ in letters:
                    page = await store.scan_dead_letters("default", filter, after, 9, walk=3)
                    found += [each.id for each in page.letters]
                    assert page.after is None or after is None or page.after > after
                    after = page.after
                    if after is None:
                        break
                assert (found, after) == (["i"], None), filter
            first = await store.scan_dead_letters(
                "default", DeadList(reason="rare"), None, 9, walk=3
            )
            assert first == Letters([], "c")
            last = await store.scan_dead_letters("default", DeadList(reason="rare"), "h", 1, walk=3)
            assert last == Letters([letters["i"]], "i")

    async def test_counts(self) -> None:
        """The numbers for metrics know tasks by state, messages and dead letters. A timer's task
        counts nowhere: it waits for nobody."""
        timer = Task("timer", TaskState.PENDING, retry_at=NOW, delivery=Delivery.NEVER)
        changes = jobs(queued("a"), queued("b"), timer)
        entry = execute("a", NOW)
        changes.outbox = {entry.key: entry}
        changes.dead_letters = {"d": letter("d")}
        async with self.opened() as store:
            await write(store, changes)
            counts = await store.counts()
            assert counts["promises"] == 3
            assert counts["tasks_pending"] == 2
            assert counts["tasks_acquired"] == 0
            assert counts["outbox"] == 1
            assert counts["dead_letters"] == 1

    async def test_tenants_are_apart(self) -> None:
        """Two tenants use the same ids, keys and queues, and neither sees anything of the other."""
        entry = execute("p", NOW)
        changes = jobs(queued("p", rank=1), queued("late", due=NOW))
        changes.callbacks = {Edge("p", "w"): True}
        changes.schedules = {"s": schedule("s", NOW)}
        changes.outbox = {entry.key: entry}
        changes.dead_letters = {"d": letter("d")}
        reads = Reads(
            objects={"p"},
            edges={"p"},
            heads={Head("q"): 9},
            schedules={"s"},
            messages={entry.key},
            dead_letters={"d"},
        )
        async with self.opened() as store:
            await write(store, changes, tenant="one")
            nothing = await read(store, reads, tenant="two")
            assert not any((*nothing.promises.values(), *nothing.tasks.values()))
            assert not any((*nothing.callbacks.values(), *nothing.heads.values()))
            assert not any((*nothing.schedules.values(), *nothing.messages.values()))
            assert await store.dump("two") == Dump()
            assert await store.scan_promises("two", None, 9, {}) == []
            await write(store, changes, tenant="two")
            await write(store, Changes(callbacks={Edge("p", "w"): False}), tenant="two")
            assert (await store.dump("one")).callbacks == {Edge("p", "w")}
            assert (await read(store, reads, tenant="one")).heads == {Head("q"): ["p", "late"]}
            due = await store.due(NOW, 9)
            assert due.ready == [Key("one", "late"), Key("two", "late")]
            assert due.schedules == [Key("one", "s"), Key("two", "s")]
            channels = [poll_channel("g", None, tenant) for tenant in ("one", "two")]
            found = await store.scan_outbox(NOW, 9, channels)
            assert [tenant for tenant, _, _ in found] == ["one", "two"]
            assert len(await store.scan_outbox(NOW, 1, channels)) == 1
