"""Connection suite: keys against duplicates, in answers and refusals (protocol B4)."""

from __future__ import annotations

import asyncio
from typing import Final

from kept.contract.connected import Connects, ask, fresh_id
from kept.protocol import requests as r
from kept.protocol import responses as a
from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import EMPTY, PromiseRecord, PromiseState, TaskState, Value

_LATER: Final = str(NEVER_MS - 2)


def keyed(id: str, queue: str, param: Value = EMPTY, **keys: str) -> r.PromiseCreate:
    """A job whose keys are `dedupe`, `dedupe_window`, `debounce`, `singleton` and so on."""
    named = {f"kept:{name.replace('_', '-')}": text for name, text in keys.items()}
    delay = {tag.DELAY: named.pop("kept:delay")} if "delay" in keys else {}
    return r.PromiseCreate(id, NEVER_MS, param, {tag.TARGET: f"queue://{queue}", **delay, **named})


class KeyCases(Connects):
    """Creates that are about the same thing are answered alike by every way to an engine."""

    async def test_a_dedupe_key(self) -> None:
        """Another id gets the record that holds the key, before it settles and in the window after;
        another fingerprint is refused, unless that is ignored; another queue is not concerned."""
        async with self.connected() as connection:
            queue, first, second = fresh_id("q"), fresh_id(), fresh_id()

            async def create(id: str, param: str, queue: str = queue, **keys: str) -> PromiseRecord:
                create = keyed(id, queue, Value(data=param), dedupe="event", **keys)
                return (await ask(connection, create, a.PromiseResult)).promise

            made = await create(first, "1", dedupe_window="600000")
            assert await create(second, "1") == made
            assert (await connection.send(r.PromiseGet(second))).status == 404
            refused = await connection.send(keyed(second, queue, Value(data="2"), dedupe="event"))
            assert (refused.status, type(refused.data)) == (409, str)
            assert (await create(second, "2", dedupe_mismatch="ignore")).id == first
            settle = r.PromiseSettle(first, PromiseState.RESOLVED, Value(data="done"))
            settled = (await ask(connection, settle, a.PromiseResult)).promise
            assert await create(second, "1") == settled
            assert (await create(second, "2", fresh_id("q"))).id == second

    async def test_many_creates_under_one_key_at_once(self) -> None:
        """Each is answered, all with the one that was first."""
        async with self.connected() as connection:
            queue = fresh_id("q")
            creates = [keyed(fresh_id(), queue, dedupe="event") for _ in range(50)]
            answers = await asyncio.gather(
                *(ask(connection, create, a.PromiseResult) for create in creates)
            )
            assert len({answer.promise.id for answer in answers}) == 1

    async def test_a_debounce_key(self) -> None:
        """A later create puts the waiting job off, or takes its place; one that was started is left
        alone."""
        async with self.connected() as connection:
            queue, ids = fresh_id("q"), [fresh_id() for _ in range(4)]
            first = keyed(ids[0], queue, debounce="d")
            later = keyed(ids[1], queue, debounce="d", delay=_LATER)
            other = keyed(ids[2], queue, debounce="d", debounce_mode="replace")
            claim = r.TaskClaim([queue], "w", 60_000)
            for create, expected in ((first, ids[0]), (later, ids[0])):
                assert (await ask(connection, create, a.PromiseResult)).promise.id == expected
            assert (await ask(connection, claim, a.ClaimResult)).tasks == []
            assert (await ask(connection, other, a.PromiseResult)).promise.id == ids[2]
            former = (await ask(connection, r.PromiseGet(ids[0]), a.PromiseResult)).promise
            assert former.state is PromiseState.REJECTED_CANCELED
            claimed = await ask(connection, claim, a.ClaimResult)
            assert [each.task.id for each in claimed.tasks] == [ids[2]]
            create = keyed(ids[3], queue, debounce="d")
            assert (await ask(connection, create, a.PromiseResult)).promise.id == ids[3]

    async def test_a_singleton_key(self) -> None:
        """While one is under way another is refused, is answered with it, or takes its place."""
        async with self.connected() as connection:
            queue, first, second = fresh_id("q"), fresh_id(), fresh_id()

            def single(id: str, mode: str) -> r.PromiseCreate:
                return keyed(id, queue, singleton=mode, singleton_key="report")

            await ask(connection, single(first, "skip"), a.PromiseResult)
            refused = await connection.send(single(second, "skip"))
            assert (refused.status, type(refused.data)) == (409, str)
            answered = await ask(connection, single(second, "return"), a.PromiseResult)
            assert answered.promise.id == first
            newer = await ask(connection, single(second, "replace"), a.PromiseResult)
            assert (newer.promise.id, newer.promise.state) == (second, PromiseState.PENDING)
            former = (await ask(connection, r.PromiseGet(first), a.PromiseResult)).promise
            assert former.state is PromiseState.REJECTED_CANCELED
            task = (await ask(connection, r.TaskGet(first), a.TaskResult)).task
            assert task.state is TaskState.FULFILLED

    async def test_keys_that_make_no_sense(self) -> None:
        """Refused as wrong requests, and nothing is stored."""
        async with self.connected() as connection:
            id, queue = fresh_id(), fresh_id("q")
            for keys in (
                {"dedupe": ""},
                {"dedupe_window": "5"},
                {"dedupe": "k", "dedupe_window": "soon"},
                {"debounce_max": "5"},
                {"debounce": "k", "debounce_mode": "bounce"},
                {"singleton": "one", "singleton_key": "k"},
                {"singleton": "skip"},
            ):
                refused = await connection.send(keyed(id, queue, EMPTY, **keys))
                assert (refused.status, type(refused.data)) == (400, str), keys
            assert (await connection.send(r.PromiseGet(id))).status == 404
