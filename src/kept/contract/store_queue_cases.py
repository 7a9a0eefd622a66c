"""Store suite: heads of queues, and what is due."""

from __future__ import annotations

from kept.contract.store_samples import (
    NOW,
    Opens,
    acquired,
    births,
    execute,
    jobs,
    letter,
    promise,
    pushed,
    queued,
    read,
    schedule,
    settled,
    unblock,
    write,
)
from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import Delivery, Task, TaskState
from kept.protocol.storage import (
    Awaited,
    Changes,
    Due,
    Edge,
    Head,
    Holder,
    Key,
    LaneHead,
    LaneSpan,
    Loaded,
    QueueCounts,
    Reads,
    Slots,
)
from kept.stores.base import Store


class QueueCases(Opens):
    """What comes first, and when it is due."""

    async def test_head_order(self) -> None:
        """Ready tasks by rank, of equal ranks the one born first, then delayed ones that are due by
        their time; never one that is held, delayed, pushed or in another queue."""
        tasks = (
            queued("late", due=NOW + 1),
            queued("due2", due=NOW),
            queued("due1", due=NOW - 1),
            queued("second", rank=2),
            queued("b", rank=1),
            queued("a", rank=1),
            queued("first", rank=-5),
            queued("elsewhere", "other", rank=-9),
            acquired("held", NOW),
            pushed("pushed", NOW),
            Task("done", TaskState.FULFILLED, delivery=Delivery.PULL, queue="q", ready=True),
        )
        order = ["first", "b", "a", "second", "due1", "due2"]
        async with self.opened() as store:
            await write(store, jobs(*tasks))
            for count in range(1, 8):
                loaded = await _head(store, Head("q"), count)
                assert loaded.heads == {Head("q"): order[:count]}
                assert set(loaded.tasks) == set(loaded.promises) == set(order[:count])
                assert all(loaded.promises.values())
            assert (await _head(store, Head("empty"), 5)).heads == {Head("empty"): []}

    async def test_head_of_some_functions(self) -> None:
        """With functions named, only their tasks; order is by rank across them. A task without a
        function is in no such head, and all are in the one that names none."""
        tasks = (
            queued("1", rank=1, function="f"),
            queued("2", rank=2, function="g"),
            queued("3", rank=3, function="f"),
            queued("4", rank=4),
            queued("5", rank=5, function=""),
            queued("6", function="h", due=NOW),
            queued("7", function="f", due=NOW),
        )
        wanted: dict[Head, list[str]] = {
            Head("q"): ["1", "2", "3", "4", "5", "6", "7"],
            Head("q", ("f",)): ["1", "3", "7"],
            Head("q", ("g", "f")): ["1", "2", "3", "7"],
            Head("q", ("h", "h", "")): ["5", "6"],
            Head("q", ("unknown",)): [],
            Head("q", ()): [],
        }
        async with self.opened() as store:
            await write(store, jobs(*tasks))
            loaded = await read(store, Reads(heads=dict.fromkeys(wanted, 100)))
            assert loaded.heads == wanted
            loaded = await read(store, Reads(heads=dict.fromkeys(wanted, 2)))
            assert loaded.heads == {head: ids[:2] for head, ids in wanted.items()}

    async def test_head_follows_changes(self) -> None:
        """A task leaves the head when it is taken and comes back at its new rank."""
        async with self.opened() as store:
            await write(store, jobs(queued("a", rank=1), queued("b", rank=2)))
            await write(store, Changes(tasks={"a": acquired("a", NOW + 1)}))
            assert (await _head(store, Head("q"), 5)).heads == {Head("q"): ["b"]}
            await write(store, Changes(tasks={"a": queued("a", rank=3)}))
            assert (await _head(store, Head("q"), 5)).heads == {Head("q"): ["b", "a"]}
            await write(store, Changes(tasks={"b": queued("b", due=NOW + 5)}))
            assert (await _head(store, Head("q"), 5)).heads == {Head("q"): ["a"]}

    async def test_head_of_a_long_queue(self) -> None:
        """The head of 100,000 tasks costs its own size, not the queue's: a thousand looks pass."""
        async with self.opened() as store:
            for start in range(0, 100_000, 10_000):
                tasks = (
                    queued(f"t{n}", rank=n, function="f") for n in range(start, start + 10_000)
                )
                await write(store, jobs(*tasks))
            await write(store, jobs(queued("rare", rank=10**9, function="g")))
            expected = [f"t{n}" for n in range(10)]
            for _ in range(500):
                assert (await _head(store, Head("q"), 10)).heads[Head("q")] == expected
                rare = Head("q", ("g",))
                assert (await _head(store, rare, 10)).heads[rare] == ["rare"]

    async def test_lanes(self) -> None:
        """Of a head whose ready tasks are in several lanes, the lanes are asked for by name, in order
        from one on and round, and of each its first tasks by rank."""
        tasks = (
            *(
                queued(f"{lane}{n}", rank=n, function="f", lane=lane)
                for lane in "bca"
                for n in (2, 1)
            ),
            queued("b0", rank=0, function="g", lane="b"),
            queued("d1", function="g", lane="d"),
            queued("e1", function="f", lane="e", due=NOW + 9),
        )
        f, g = Head("q", ("f",)), Head("q", ("g",))
        async with self.opened() as store:
            await write(store, jobs(*tasks))
            loaded = await read(store, Reads(heads={Head("q"): 9, f: 9}))
            assert loaded.laned == {Head("q"), f}
            assert loaded.heads == {Head("q"): [], f: []}
            for head, span, names in (
                (f, LaneSpan("", 9), "abc"),
                (f, LaneSpan("b", 9), "bca"),
                (f, LaneSpan("b\0", 2), "ca"),
                (f, LaneSpan("x", 2), "ab"),
                (f, LaneSpan("b", 1), "b"),
                (Head("q"), LaneSpan("b", 2), "bc"),
                (Head("q"), LaneSpan("d", 2), "da"),
                (g, LaneSpan("", 9), "bd"),
                (Head("none"), LaneSpan("", 9), ""),
            ):
                loaded = await read(store, Reads(lanes={head: span}))
                assert loaded.lanes == {head: list(names)}, (head, span)
                assert not loaded.tasks
            fronts = {
                LaneHead(f, "a"): (1, "a1"),
                LaneHead(f, "b"): (5, "b1 b2"),
                LaneHead(Head("q"), "b"): (2, "b0 b1"),
                LaneHead(Head("q"), "c"): (2, "c1 c2"),
                LaneHead(g, "b"): (2, "b0"),
                LaneHead(g, "c"): (2, ""),
                LaneHead(f, "e"): (2, ""),
                LaneHead(Head("none"), "a"): (2, ""),
            }
            loaded = await read(
                store, Reads(fronts={of: count for of, (count, _) in fronts.items()})
            )
            assert loaded.fronts == {of: ids.split() for of, (_, ids) in fronts.items()}
            assert set(loaded.tasks) == {"a1", "b0", "b1", "b2", "c1", "c2"}
            await write(store, Changes(tasks={id: acquired(id, NOW) for id in ("b0",)}))
            loaded = await read(store, Reads(heads={g: 9}))
            assert (loaded.laned, loaded.heads) == (set(), {g: ["d1"]})

    async def test_many_lanes(self) -> None:
        """Looking at a few of 20,000 lanes costs what is looked at: hundreds of looks pass."""
        async with self.opened() as store:
            for start in range(0, 20_000, 5_000):
                numbers = range(start, start + 5_000)
                await write(store, jobs(*(queued(f"t{n}", lane=f"{n:05}") for n in numbers)))
            for start in range(0, 20_000, 100):
                span = LaneSpan(f"{start:05}", 3)
                names = [f"{start + n:05}" for n in range(3)]
                fronts = {LaneHead(Head("q"), name): 2 for name in names}
                loaded = await read(store, Reads(lanes={Head("q"): span}, fronts=fronts))
                assert loaded.lanes == {Head("q"): names}
                assert [*loaded.fronts.values()] == [[f"t{start + n}"] for n in range(3)]

    async def test_slots_and_depths(self) -> None:
        """What is acquired is counted by queue and lane, what waits by queue, ready or delayed."""
        tasks = (
            acquired("a", NOW, lane="x"),
            acquired("b", NOW, lane="x"),
            acquired("c", NOW, lane="y"),
            queued("d", lane="x"),
            queued("e", due=NOW + 5),
            queued("f", "other"),
        )
        wanted = {Slots("q"): 3, Slots("q", "x"): 2, Slots("q", "y"): 1, Slots("none"): 0}
        async with self.opened() as store:
            await write(store, jobs(*tasks))
            loaded = await read(store, Reads(slots=set(wanted), depths={"q", "other", "none"}))
            assert loaded.slots == wanted
            assert loaded.depths == {"q": 2, "other": 1, "none": 0}
            await write(store, Changes(tasks={"a": queued("a")}))
            loaded = await read(store, Reads(slots={Slots("q", "x")}, depths={"q"}))
            assert (loaded.slots, loaded.depths) == ({Slots("q", "x"): 1}, {"q": 3})

    async def test_queue_counts(self) -> None:
        """The numbers of a queue: due and delayed, held and parked, dead, and the oldest in line."""
        tasks = (
            queued("new", rank=2, at=NOW - 1),
            queued("old", rank=1, at=NOW - 7),
            queued("unmarked", due=NOW),
            queued("delayed", due=NOW + 1),
            acquired("held", NOW),
            Task("s", TaskState.SUSPENDED, 1, delivery=Delivery.PULL, queue="q", lane="lane"),
            Task("h", TaskState.HALTED, 1, delivery=Delivery.PULL, queue="q", lane="lane"),
            Task("done", TaskState.FULFILLED, 1, delivery=Delivery.PULL, queue="q", lane="lane"),
            queued("elsewhere", "other"),
        )
        async with self.opened() as store:
            changes = jobs(*tasks)
            changes.dead_letters = {"dead": letter("dead", queue="q")}
            await write(store, changes)
            counts = await store.queue_counts("default", "q", NOW)
            assert counts == QueueCounts(3, 1, 1, 1, 1, 1, NOW - 7)
            assert await store.queue_counts("default", "none", NOW) == QueueCounts()
            assert await store.queue_counts("other", "q", NOW) == QueueCounts()

    async def test_overview(self) -> None:
        """Which queues there are, who holds what of them, and what comes before a task."""
        tasks = (
            queued("b", rank=2),
            queued("a", rank=2),
            queued("first", rank=1),
            queued("other-lane", rank=0, lane="x"),
            queued("delayed", due=NOW + 1),
            acquired("held", NOW + 9),
            acquired("also", NOW + 5, lane="x"),
            Task("halted", TaskState.HALTED, 1, delivery=Delivery.PULL, queue="parked", lane="l"),
            Task("done", TaskState.FULFILLED, 1, delivery=Delivery.PULL, queue="over", lane="l"),
        )
        async with self.opened() as store:
            changes = jobs(*tasks)
            changes.dead_letters = {"dead": letter("dead", queue="dead")}
            await write(store, changes)
            await write(store, jobs(queued("t")), tenant="other")
            default = [("default", name) for name in ("dead", "parked", "q")]
            assert await store.queue_names(9) == [*default, ("other", "q")]
            assert await store.queue_names(2) == default[:2]
            (pid,) = {task.pid for task in tasks if task.pid is not None}
            assert await store.worker_leases(9) == {pid: 2}
            assert await store.worker_leases(1) == {pid: 1}
            held = Holder("held", pid, NOW + 9), Holder("also", pid, NOW + 5)
            assert await store.holders("default", Slots("q"), 9) == list(held)
            assert await store.holders("default", Slots("q", "x"), 9) == [held[1]]
            assert await store.holders("default", Slots("q"), 1) == [held[0]]
            counts = {
                id: await store.count_before("default", id, 9)
                for id in ("first", "b", "a", "other-lane")
            }
            assert counts == {"first": 0, "b": 1, "a": 2, "other-lane": 0}
            assert await store.count_before("default", "a", 1) == 1

    async def test_awaited_by(self) -> None:
        """What a task awaits, whoever else awaits it too, and never another tenant's."""
        tasks = tuple(queued(id) for id in ("w", "p1", "p2", "p3"))
        async with self.opened() as store:
            changes = jobs(*tasks)
            edges = (Edge("p2", "w"), Edge("p1", "w"), Edge("p1", "p3"))
            changes.callbacks = dict.fromkeys(edges, True)
            await write(store, changes)
            elsewhere = jobs(queued("w"), queued("p4"))
            elsewhere.callbacks = {Edge("p4", "w"): True}
            await write(store, elsewhere, tenant="other")
            assert await store.awaited_by("default", "w", 9) == Awaited(["p1", "p2"], True)
            assert await store.awaited_by("default", "w", 1) == Awaited(["p1"], False)
            assert await store.awaited_by("default", "p1", 9) == Awaited([], True)

    async def test_requests(self) -> None:
        """Tasks are found by the id of their last request, until they have another."""
        held = [acquired(id, NOW + 1, request="claim-1") for id in ("b", "a")]
        async with self.opened() as store:
            await write(store, jobs(*held, queued("c")))
            loaded = await read(store, Reads(requests={"claim-1"}))
            assert loaded.requests == {"claim-1": ["a", "b"]}
            assert loaded.tasks == {task.id: task for task in held}
            assert set(loaded.promises) == {"a", "b"}
            await write(store, Changes(tasks={"a": acquired("a", NOW + 1, request="fulfil-2")}))
            loaded = await read(store, Reads(requests={"claim-1", "fulfil-2"}))
            assert loaded.requests == {"claim-1": ["b"], "fulfil-2": ["a"]}

    # -- what is due -----------------------------------------------------------------------------

    async def test_due(self) -> None:
        """Each kind is due from its instant on, oldest first, and `next_due` is the earliest."""
        external = {tag.EXTERNAL: "true"}
        changes = jobs(
            acquired("lease2", NOW + 2),
            acquired("lease1", NOW + 1),
            pushed("retry2", NOW + 2),
            pushed("retry1", NOW + 1),
            queued("delayed2", due=NOW + 2),
            queued("delayed1", due=NOW + 1),
            queued("ready"),
        )
        deadlines = births(
            promise("deadline2", at=NOW + 2, tags=external),
            promise("deadline1", at=NOW + 1, tags=external),
            promise("internal", at=NOW + 1),
            promise("endless", at=NEVER_MS, tags=external),
            settled(promise("settled", at=NOW + 1, tags=external)),
        )
        plans = Changes(schedules={f"s{n}": schedule(f"s{n}", NOW + n) for n in (2, 1)})
        async with self.opened() as store:
            assert await store.next_due() is None
            await write(store, changes, deadlines, plans)
            assert await store.next_due() == NOW + 1
            assert not await store.due(NOW, 10)
            assert await store.due(NOW + 1, 10) == _due("1")
            assert await store.due(NOW + 2, 10) == _due("1", "2")
            assert await store.due(NOW + 2, 1) == _due("1")

    async def test_no_longer_due(self) -> None:
        """What was settled, renewed or taken is not due any more."""
        tags = {tag.TARGET: "queue://q"}
        deadline = promise("p", at=NOW, tags=tags)
        async with self.opened() as store:
            await write(
                store, births(deadline, tasks=(acquired("p", NOW),)), jobs(pushed("t", NOW))
            )
            await write(store, Changes(schedules={"s": schedule("s", NOW)}))
            assert await store.next_due() == NOW
            await write(store, Changes(tasks={"p": acquired("p", NOW + 5)}))
            due = await store.due(NOW, 10)
            assert (due.leases, due.deadlines) == ([], [Key("default", "p")])
            await write(store, Changes({"p": settled(deadline)}, {"t": acquired("t", NOW + 7)}))
            await write(store, Changes(schedules={"s": schedule("s", NOW, paused=True)}))
            assert not await store.due(NOW, 10)
            await write(store, Changes(schedules={"s": schedule("s", NOW + 9)}))
            assert not await store.due(NOW, 10)
            assert await store.next_due() == NOW + 5

    async def test_outbox(self) -> None:
        """Messages come by channel, oldest first, with their promise as it is stored now."""
        entries = [
            execute("p", NOW + 2),
            unblock("p", NOW + 1),
            unblock("p", NOW + 3, "poll://any@g/id"),
            unblock("p", NOW + 1, "http://host/"),
            unblock("q", NOW + 1, "poll://any@other"),
            unblock("q", NOW + 1, "poll://uni@g/id"),
        ]
        changes = births(promise("p"), promise("q"))
        changes.outbox = {entry.key: entry for entry in entries}
        async with self.opened() as store:
            await write(store, changes)
            await write(store, Changes({"p": settled(promise("p"))}))
            found = await store.scan_outbox(NOW + 3, 10, ["poll:g"])
            assert [entry for _, entry, _ in found] == [entries[1], entries[0], entries[2]]
            assert [of for _, _, of in found] == 3 * [settled(promise("p"))]
            assert [tenant for tenant, _, _ in found] == 3 * ["default"]
            assert len(await store.scan_outbox(NOW + 2, 10, ["poll:g"])) == 2
            assert len(await store.scan_outbox(NOW + 3, 1, ["poll:g"])) == 1
            both = await store.scan_outbox(NOW + 9, 10, ["http", "poll:other"])
            assert [entry for _, entry, _ in both] == [entries[3], entries[4]]
            assert await store.scan_outbox(NOW + 9, 10, ["poll:nobody", "poll:g/other"]) == []
            member = await store.scan_outbox(NOW + 9, 10, ["poll:g/id"])
            assert [entry for _, entry, _ in member] == [entries[5]]
            assert await store.next_message(["poll:g/other", "poll:g/id"]) == NOW + 1
            assert await store.next_message(["poll:g", "poll:nobody"]) == NOW + 1
            assert await store.next_message([]) is None
            await write(store, Changes(outbox={entries[1].key: None}))
            assert await store.next_message(["poll:g"]) == NOW + 2


def _due(*endings: str) -> Due:
    def keys(name: str) -> list[Key]:
        return [Key("default", name + ending) for ending in endings]

    return Due(
        deadlines=keys("deadline"),
        leases=keys("lease"),
        retries=keys("retry"),
        ready=keys("delayed"),
        schedules=keys("s"),
    )


async def _head(store: Store, head: Head, count: int) -> Loaded:
    return await read(store, Reads(heads={head: count}))
