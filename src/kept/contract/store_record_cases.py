"""Store suite: records come back as they were put."""

from __future__ import annotations

from msgspec.structs import replace

from kept.contract.store_samples import (
    NOW,
    ODD_IDS,
    Opens,
    acquired,
    births,
    execute,
    jobs,
    letter,
    promise,
    queued,
    read,
    schedule,
    settled,
    unblock,
    write,
)
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_PAYLOAD_BYTES, NEVER_MS
from kept.protocol.records import (
    EMPTY,
    Delivery,
    MessageKey,
    OutboxEntry,
    Promise,
    PromiseState,
    Task,
    TaskState,
    Value,
)
from kept.protocol.storage import Changes, Dump, Edge, Notice, Reads


class RecordCases(Opens):
    """Every kind of record, every field, every odd text."""

    async def test_every_field_comes_back(self) -> None:
        """A promise and a task with all of their fields set are loaded equal to what was saved."""
        all_tags = {
            tag.TARGET: "queue://q",
            tag.ORIGIN: "root",
            tag.PARENT: "parent",
            tag.BRANCH: "branch",
            tag.FUNCTION: "f@1",
            "ключ": '\u2028 \\ "',
        }
        full = Promise(
            "p",
            PromiseState.REJECTED,
            Value({"h": "é", "": ""}, '{"a": "\\u0000"}'),
            Value({"x": "y"}, ""),
            all_tags,
            NEVER_MS - 1,
            NOW,
            NOW + 7,
        )
        task = Task(
            id="p",
            state=TaskState.ACQUIRED,
            version=7,
            resumes=2,
            ttl=5,
            pid="pid",
            expires_at=NOW + 5,
            retry_at=NOW + 6,
            delivery=Delivery.NEVER,
            queue="q",
            lane="lane",
            function="f@1",
            ready=True,
            rank=-(2**52),
            failures=3,
            releases=4,
            last_request="request",
            last_answer=b"\x00\xff",
        )
        async with self.opened() as store:
            await write(store, births(full, tasks=(task,)))
            loaded = await read(store, Reads(objects={"p"}))
            assert loaded.promises == {"p": full}
            assert loaded.tasks == {"p": task}
            assert type(loaded.tasks["p"]) is Task
            assert await store.scan_tasks("default", None, 10) == [(task, full)]

    async def test_defaults_come_back(self) -> None:
        """A promise without anything optional has none of it afterwards, and no task."""
        bare = promise("bare")
        async with self.opened() as store:
            await write(store, births(bare))
            loaded = await read(store, Reads(objects={"bare"}))
            assert loaded.promises == {"bare": bare}
            assert loaded.tasks == {"bare": None}
            assert loaded.promises["bare"] is not None
            assert loaded.promises["bare"].param == EMPTY

    async def test_absent_keys_are_named(self) -> None:
        """What does not exist is in the answer too, as None or as nothing."""
        key = MessageKey.execute("x")
        reads = Reads(
            objects={"x"},
            edges={"x"},
            children={"x"},
            schedules={"x"},
            messages={key},
            dead_letters={"x"},
            requests={"x"},
        )
        async with self.opened() as store:
            loaded = await read(store, reads)
        assert loaded.promises == {"x": None}
        assert loaded.tasks == {"x": None}
        assert loaded.callbacks == {"x": []}
        assert loaded.listeners == {"x": []}
        assert loaded.schedules == {"x": None}
        assert loaded.messages == {key: None}
        assert loaded.dead_letters == {"x": None}
        assert loaded.requests == {"x": []}
        page = loaded.children["x"]
        assert (page.released, page.others, page.more) == ([], [], None)

    async def test_settlement(self) -> None:
        """A settled promise keeps its param, gains its value, and its task is replaced whole."""
        before = promise("p", at=NOW + 50, param=Value(None, "in"), tags={tag.TARGET: "queue://q"})
        after = settled(before, Value({"k": "v"}, "out"))
        done = Task("p", TaskState.FULFILLED, 1, delivery=Delivery.PULL, queue="q")
        async with self.opened() as store:
            await write(store, births(before, tasks=(acquired("p", NOW + 9),)))
            async with store.transaction() as transaction:
                await transaction.load("default", Reads(objects={"p"}), NOW)
                await transaction.save("default", Changes({"p": after}, {"p": done}))
                await transaction.commit("settling", NOW, Notice())
            loaded = await read(store, Reads(objects={"p"}))
            assert loaded.promises == {"p": after}
            assert loaded.tasks == {"p": done}
            assert await store.next_due() is None

    async def test_replacing_what_was_not_loaded(self) -> None:
        """A record is replaced whole even when the transaction did not look at it first."""
        before = promise("p", param=Value(None, "old"), tags={tag.PARENT: "a", "t": "1"})
        after = Promise(
            "p", PromiseState.PENDING, EMPTY, EMPTY, {tag.PARENT: "b"}, NOW + 5, NOW - 1
        )
        async with self.opened() as store:
            await write(store, births(before))
            await write(store, Changes({"p": after}))
            loaded = await read(store, Reads(objects={"p"}, children={"a", "b"}))
            assert loaded.promises["p"] == after
            assert loaded.children["a"].others == []
            assert loaded.children["b"].others == [after]

    async def test_odd_ids(self) -> None:
        """Ids are told apart by their characters only, and ordered by their bytes."""
        async with self.opened() as store:
            await write(store, jobs(*(queued(id, rank=n) for n, id in enumerate(ODD_IDS))))
            loaded = await read(store, Reads(objects=set(ODD_IDS)))
            assert {id for id, found in loaded.promises.items() if found} == set(ODD_IDS)
            scanned = await store.scan_promises("default", None, 1_000, {})
            assert [each.id for each in scanned] == sorted(ODD_IDS, key=str.encode)
            for id in ODD_IDS:
                found = await store.scan_promises("default", None, 1_000, {"prefix": id})
                assert {each.id for each in found} == {x for x in ODD_IDS if x.startswith(id)}, id

    async def test_large_payloads(self) -> None:
        """The largest payloads come back to the byte."""
        text = "é" * (MAX_PAYLOAD_BYTES // 2)
        before = promise("p", param=Value(None, text))
        async with self.opened() as store:
            await write(store, births(before))
            await write(store, Changes({"p": settled(before, Value({"h": text[:99]}, text))}))
            loaded = await read(store, Reads(objects={"p"}))
            assert loaded.promises["p"] == settled(before, Value({"h": text[:99]}, text))

    async def test_schedules_messages_and_dead_letters(self) -> None:
        """Each is put, found by its key, replaced, and removed; removing what is gone is harmless."""
        entry = execute("p", NOW)
        async with self.opened() as store:
            await write(store, births(promise("p")))
            reads = Reads(schedules={"s"}, messages={entry.key}, dead_letters={"d"})
            for run, reason in ((NOW, "exhausted"), (NOW + 1, "other")):
                message = OutboxEntry(entry.key, "http://host/", 4, run, 9)
                await write(
                    store,
                    Changes(
                        schedules={"s": schedule("s", run)},
                        outbox={entry.key: message},
                        dead_letters={"d": letter("d", reason=reason)},
                    ),
                )
                loaded = await read(store, reads)
                assert loaded.schedules == {"s": schedule("s", run)}
                assert loaded.messages == {entry.key: message}
                assert loaded.dead_letters == {"d": letter("d", reason=reason)}
            gone = Changes(
                schedules={"s": None}, outbox={entry.key: None}, dead_letters={"d": None}
            )
            for _ in range(2):
                await write(store, gone)
                loaded = await read(store, reads)
                assert [*loaded.schedules.values(), *loaded.messages.values()] == [None, None]
                assert loaded.dead_letters == {"d": None}

    async def test_dump_and_reset(self) -> None:
        """A dump holds everything of its tenant; a reset removes all of that and nothing else."""
        changes = births(promise("p"), promise("w"), tasks=(acquired("w", NOW + 1),))
        note = unblock("p", NOW)
        changes.callbacks = {Edge("p", "w"): True}
        changes.listeners = {Edge("p", "poll://any@g"): True}
        changes.resumes = {Edge("w", "p"): True}
        changes.releases = {Edge("w", "p"): 1}
        changes.schedules = {"s": schedule("s", NOW)}
        changes.outbox = {note.key: note}
        changes.dead_letters = {"d": letter("d")}
        whole = Dump(
            promises=changes.promises,
            tasks=changes.tasks,
            callbacks={Edge("p", "w")},
            listeners={Edge("p", "poll://any@g")},
            resumes={Edge("w", "p")},
            releases={Edge("w", "p"): 1},
            schedules={"s": schedule("s", NOW)},
            outbox={note.key: note},
            dead_letters={"d": letter("d")},
        )
        async with self.opened() as store:
            await write(store, changes)
            await write(store, changes, tenant="other")
            assert await store.dump("default") == whole
            await write(store, Changes(reset=True))
            assert await store.dump("default") == Dump()
            assert await store.dump("other") == whole
            await write(store, Changes(reset=True), changes)
            assert await store.dump("default") == whole
            again = births(promise("p"))
            again.reset = True
            await write(store, again)
            assert await store.dump("default") == Dump(promises=again.promises)

    async def test_a_request_to_cancel_is_kept(self) -> None:
        """It is stored with a pending promise, and stays when that is settled."""
        before = promise("p", tags={tag.TARGET: "queue://q"}, param=Value(data="1"))
        asked = replace(before, cancel_requested_at=NOW)
        async with self.opened() as store:
            await write(store, births(before))
            for after in (asked, replace(settled(asked), cancel_requested_at=NOW)):
                await write(store, Changes(promises={"p": after}))
                assert (await read(store, Reads({"p"}))).promises == {"p": after}
                assert (await store.dump("default")).promises == {"p": after}
