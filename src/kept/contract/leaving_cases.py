"""Connection suite: what leaves, by a purge or after its retention (protocol B4, B6)."""

from __future__ import annotations

from typing import Final

from kept.client.connection import Connection
from kept.contract.connected import Connects, ask, fresh_id
from kept.protocol import requests as r
from kept.protocol import responses as a
from kept.protocol import tags as tag
from kept.protocol.entries import LetterFilter
from kept.protocol.limits import MIN_RETENTION_MS, NEVER_MS
from kept.protocol.records import EMPTY, PromiseState, Value

_LETTERS: Final = 5


def _job(id: str, queue: str) -> r.PromiseCreate:
    return r.PromiseCreate(id, NEVER_MS, Value(data="x"), {tag.TARGET: f"queue://{queue}"})


async def _done(connection: Connection, id: str, queue: str) -> None:
    await ask(connection, _job(id, queue), a.PromiseResult)
    settle = r.PromiseSettle(id, PromiseState.RESOLVED, Value(data="y"))
    await ask(connection, settle, a.PromiseResult)


async def _dead(connection: Connection, queue: str, reason: str) -> list[str]:
    """Dead letters of a queue."""
    ids = [fresh_id("job") for _ in range(_LETTERS)]
    for id in ids:
        await ask(connection, _job(id, queue), a.PromiseResult)
    claim = r.TaskClaim([queue], "w", 60_000, limit=_LETTERS)
    for lease in (await ask(connection, claim, a.ClaimResult)).tasks:
        nack = r.TaskNack(lease.task.id, lease.task.version, reason=reason, final="reject")
        await ask(connection, nack, a.NackResult)
    return ids


async def _gone(connection: Connection, id: str) -> None:
    """Returns once the promise has left."""
    while (await connection.send(r.PromiseWait(id, 1))).status != 404:
        pass


class LeavingCases(Connects):
    """Dead letters are forgotten on demand, settled work after its retention."""

    async def test_a_purge_by_ids(self) -> None:
        """Each for itself; a dry run changes nothing; the promises stay."""
        async with self.connected() as connection:
            queue = fresh_id("q")
            ids = await _dead(connection, queue, "bad")
            for dry_run, left in ((True, _LETTERS), (False, _LETTERS - 1)):
                purge = r.DeadPurge([ids[0], fresh_id("none")], dry_run=dry_run)
                purges = (await ask(connection, purge, a.PurgeResult)).purges
                assert [each.status for each in purges] == [200, 404]
                page = await ask(connection, r.DeadList(queue), a.DeadLetterPage)
                assert len(page.letters) == left
            assert (await connection.send(r.DeadGet(ids[0]))).status == 404
            promise = (await ask(connection, r.PromiseGet(ids[0]), a.PromiseResult)).promise
            assert promise.state is PromiseState.REJECTED

    async def test_a_purge_by_filter(self) -> None:
        """In the background, once for its id; it tells how far it is."""
        async with self.connected() as connection:
            queue, bulk_id = fresh_id("q"), fresh_id("bulk")
            await _dead(connection, queue, "bad")
            kept = await _dead(connection, queue, "worse")
            filter = LetterFilter(queue=queue, reason="bad")
            purge = r.DeadPurge([], filter, bulk=bulk_id)
            begun: a.BulkRecord | None = None
            for _ in range(2):
                begun = (await ask(connection, purge, a.PurgeResult)).bulk
                assert begun is not None
                assert (begun.id, begun.filter) == (bulk_id, filter)
            bulk = begun
            assert bulk is not None
            while bulk.finished_at is None:
                bulk = (await ask(connection, r.DeadBulk(bulk_id), a.BulkResult)).bulk
            assert (bulk.done, bulk.failed) == (_LETTERS, 0)
            page = await ask(connection, r.DeadList(queue, limit=1_000), a.DeadLetterPage)
            assert sorted(each.id for each in page.letters) == sorted(kept)
            other = r.DeadPurge([], LetterFilter(queue=queue), bulk=bulk_id)
            assert (await connection.send(other)).status == 409

    async def test_what_settled_leaves(self) -> None:
        """After the retention of its queue, with its task; then the id is free."""
        async with self.connected() as connection:
            id, queue = fresh_id("job"), fresh_id("q")
            put = r.QueuePut(queue, retention=MIN_RETENTION_MS)
            settings = (await ask(connection, put, a.QueueResult)).queue
            assert (settings.retention, settings.keep_ids) == (MIN_RETENTION_MS, False)
            await _done(connection, id, queue)
            await _gone(connection, id)
            assert (await connection.send(r.TaskGet(id))).status == 404
            again = (await ask(connection, _job(id, queue), a.PromiseResult)).promise
            assert again.state is PromiseState.PENDING

    async def test_an_id_that_is_kept(self) -> None:
        """A create of it is answered with the verdict, without param and value, and since when they
        are gone; no task is made."""
        async with self.connected() as connection:
            id, queue = fresh_id("job"), fresh_id("q")
            put = r.QueuePut(queue, retention=MIN_RETENTION_MS, keep_ids=True)
            await ask(connection, put, a.QueueResult)
            await _done(connection, id, queue)
            before = (await ask(connection, r.PromiseGet(id), a.PromiseResult)).promise
            await _gone(connection, id)
            known = (await ask(connection, _job(id, queue), a.PromiseResult)).promise
            assert (known.state, known.created_at, known.settled_at, known.timeout_at) == (
                before.state,
                before.created_at,
                before.settled_at,
                before.timeout_at,
            )
            assert (known.param, known.tags, known.value.data) == (EMPTY, {}, None)
            assert before.settled_at is not None
            left_at = int((known.value.headers or {})[tag.LEFT_HEADER])
            assert left_at >= before.settled_at + MIN_RETENTION_MS
            action = r.CreateAction(_job(id, queue))
            created = await ask(connection, r.TaskCreate("w", 1, action), a.AcquiredTask)
            assert created.promise == known
            assert (await connection.send(r.TaskGet(id))).status == 404
