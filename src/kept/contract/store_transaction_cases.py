"""Store suite: transactions, batch ids and the clock."""

from __future__ import annotations

import asyncio

from kept.contract.store_samples import (
    NOW,
    Opens,
    acquired,
    births,
    jobs,
    promise,
    queued,
    read,
    settled,
    write,
)
from kept.errors import StoreError, StoreFailedError
from kept.protocol import tags as tag
from kept.protocol.storage import Changes, Dump, Edge, Head, Notice, Reads
from kept.stores.base import Store, Transaction


class _LostHeartError(Exception):
    """Why a transaction of a test was left."""


class TransactionCases(Opens):
    """All or nothing, one after another, and known afterwards."""

    async def test_leaving_without_commit_undoes_everything(self) -> None:
        """Whether by an error or by just leaving: nothing of the transaction remains."""
        before = promise("p")
        changes = jobs(queued("new"))
        changes.promises["p"] = settled(before)
        changes.callbacks = {Edge("p", "new"): True}
        changes.undrained = {"p": True}
        async with self.opened() as store:
            await write(store, births(before))
            whole = await store.dump("default")
            async with store.transaction() as transaction:
                await transaction.save("default", changes)
            try:
                async with store.transaction() as transaction:
                    await transaction.save("default", changes)
                    raise _LostHeartError
            except _LostHeartError:
                pass
            assert await store.dump("default") == whole
            assert not await store.due(NOW, 10)
            assert (await read(store, Reads(heads={Head("q"): 9}))).heads == {Head("q"): []}
            await write(store, changes)
            assert (await store.dump("default")).callbacks == {Edge("p", "new")}

    async def test_a_load_sees_what_the_transaction_saved(self) -> None:
        """Within a transaction its own changes are there, in every way of finding them; outside
        they are not before the commit."""
        changes = jobs(queued("b", rank=2), acquired("held", NOW, request="r"))
        child = promise("c", tags={tag.PARENT: "b"})
        async with self.opened() as store:
            await write(store, jobs(queued("a", rank=1)))
            async with store.transaction() as transaction:
                await transaction.save("default", changes)
                await transaction.save("default", births(child))
                await transaction.save("default", Changes(callbacks={Edge("b", "w"): True}))
                await transaction.save("default", Changes(tasks={"a": acquired("a", NOW)}))
                reads = Reads({"a", "b"}, {"b"}, {"b"}, heads={Head("q"): 9}, requests={"r"})
                loaded = await transaction.load("default", reads, NOW)
                assert loaded.tasks["a"] == acquired("a", NOW)
                assert loaded.heads == {Head("q"): ["b"]}
                assert loaded.callbacks == {"b": ["w"]}
                assert loaded.children["b"].others == [child]
                assert loaded.requests == {"r": ["held"]}
                assert [each.id for each in await store.scan_promises("default", None, 9, {})] == [
                    "a"
                ]
                await transaction.commit("visible", NOW, Notice())
            assert len(await store.scan_promises("default", None, 9, {})) == 4
            assert (await read(store, Reads(heads={Head("q"): 9}))).heads == {Head("q"): ["b"]}

    async def test_changes_are_taken_as_they_are_when_saved(self) -> None:
        """What the caller does with the changes after saving them makes no difference."""
        changes = births(promise("p"))
        async with self.opened() as store:
            async with store.transaction() as transaction:
                await transaction.save("default", changes)
                changes.promises.clear()
                changes.born_promises.clear()
                await transaction.commit("taken", NOW, Notice())
            assert set((await store.dump("default")).promises) == {"p"}

    async def test_writers_take_turns(self) -> None:
        """Of many that read, wait and write the same record, none overwrites another's work."""
        async with self.opened() as store:
            await write(store, jobs(acquired("n", NOW, version=0)))

            async def add_one(number: int) -> None:
                async with store.transaction() as transaction:
                    loaded = await transaction.load("default", Reads(objects={"n"}), NOW)
                    before = loaded.tasks["n"]
                    assert before is not None
                    for _ in range(number % 5):
                        await asyncio.sleep(0)
                    after = acquired("n", NOW, version=before.version + 1)
                    await transaction.save("default", Changes(tasks={"n": after}))
                    await transaction.commit(f"turn-{number}", NOW, Notice())

            await asyncio.gather(*(add_one(number) for number in range(50)))
            task = (await store.dump("default")).tasks["n"]
            assert task.version == 50

    async def test_turns_are_fair(self) -> None:
        """Those who wait are served in the order in which they came."""
        served: list[int] = []
        async with self.opened() as store:

            async def take(number: int) -> None:
                async with store.transaction() as transaction:
                    served.append(number)
                    await transaction.commit(f"fair-{number}", NOW, Notice())

            await asyncio.gather(*(take(number) for number in range(20)))
        assert served == list(range(20))

    async def test_cancelling_one_that_waits(self) -> None:
        """Somebody who gives up waiting for the turn leaves the line in order."""
        async with self.opened() as store:
            async with store.transaction():
                waiting = asyncio.ensure_future(write(store, births(promise("never"))))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait({waiting})
                assert waiting.cancelled()
            await write(store, births(promise("after")))
            assert set((await store.dump("default")).promises) == {"after"}

    async def test_nothing_can_be_done_after_the_end(self) -> None:
        """A transaction that has ended refuses everything."""
        async with self.opened() as store:
            async with store.transaction() as left:
                pass
            async with store.transaction() as done:
                await done.commit("only-once", NOW, Notice())
                await _refuses(done)
            await _refuses(left)
            assert await store.dump("default") == Dump()

    async def test_batch_ids(self) -> None:
        """A committed batch is known by its id, one that was undone is not."""
        async with self.opened() as store:
            async with store.transaction() as transaction:
                await transaction.commit("b-1", NOW, Notice())
            async with store.transaction():
                assert not await store.committed("b-2")
            assert await store.committed("b-1")
            assert not await store.committed("b-2")

    async def test_the_clock_never_goes_back(self) -> None:
        """Each transaction knows the greatest time of any commit before it."""
        async with self.opened() as store:
            for now, floor in ((NOW, 0), (NOW - 5, NOW), (NOW + 7, NOW), (0, NOW + 7)):
                async with store.transaction() as transaction:
                    assert transaction.clock_floor == floor
                    await transaction.commit(f"clock-{now}", now, Notice())
            async with store.transaction() as transaction:
                assert transaction.clock_floor == NOW + 7

    async def test_changes_name_what_exists(self) -> None:
        """A task, an edge or a mark of a promise that is not stored fails its transaction, and only
        that."""
        async with self.opened() as store:
            for changes in (
                Changes(tasks={"x": queued("x")}, born_tasks={"x"}),
                Changes(callbacks={Edge("x", "y"): True}),
                Changes(releases={Edge("x", "y"): 1}),
                Changes(undrained={"x": True}),
            ):
                try:
                    await write(store, births(promise("p")), changes)
                except StoreFailedError:
                    assert await store.dump("default") == Dump()
                else:
                    raise AssertionError(f"{changes} was accepted")
            await write(store, births(promise("x")), Changes(callbacks={Edge("x", "y"): True}))
            assert (await store.dump("default")).callbacks == {Edge("x", "y")}

    async def test_ping_and_close(self) -> None:
        """An open store answers; closing it twice is as good as once."""
        async with self.opened() as store:
            await store.ping()
            await store.close()
            await store.close()

    async def test_opening_again_finds_what_was_committed(self) -> None:
        """Records, batch ids and the clock outlive closing and opening; births go on being told
        apart."""
        async with self.opened() as store:
            await write(store, jobs(queued("a", rank=1)), now=NOW + 3)
            whole = await store.dump("default")
            await store.close()
            await store.open()
            assert await store.dump("default") == whole
            async with store.transaction() as transaction:
                assert transaction.clock_floor == NOW + 3
            await write(store, jobs(queued("b", rank=1)))
            loaded = await read(store, Reads(heads={Head("q"): 9}))
            assert loaded.heads == {Head("q"): ["a", "b"]}
            await _rejects_a_second_birth(store)


async def _refuses(transaction: Transaction) -> None:
    for attempt in (
        transaction.load("default", Reads(objects={"x"}), NOW),
        transaction.save("default", births(promise("x"))),
        transaction.commit("refused", NOW, Notice()),
    ):
        try:
            await attempt
        except StoreFailedError:
            continue
        raise AssertionError("an ended transaction did something")


async def _rejects_a_second_birth(store: Store) -> None:
    """A mistake of the caller's fails its own transaction and nothing else."""
    whole = await store.dump("default")
    try:
        await write(store, births(promise("a")), births(promise("z")))
    except StoreError:
        assert await store.dump("default") == whole
    else:
        raise AssertionError("a promise was born twice")
    await write(store, births(promise("z")))
    assert "z" in (await store.dump("default")).promises
