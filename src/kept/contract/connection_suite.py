"""What every way to an engine must do: subclass `ConnectionSuite` and say how to connect."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from kept.client.connection import call
from kept.contract.bounds_cases import BoundsCases
from kept.contract.connected import ask, fresh_id
from kept.contract.guard_cases import GuardCases
from kept.contract.key_cases import KeyCases
from kept.contract.leaving_cases import LeavingCases
from kept.errors import ConflictError, ConnectionFailedError, NotFoundError
from kept.protocol import requests as r
from kept.protocol import responses as a
from kept.protocol import schedule_requests as s
from kept.protocol import tags as tag
from kept.protocol.inquiries import Explanation, TaskExplain
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import Catchup, Overlap, PromiseState, TaskState, Value

_EXCHANGES: Final = 20


def job(id: str, queue: str) -> r.PromiseCreate:
    """A promise with work to do in `queue`."""
    return r.PromiseCreate(id, NEVER_MS, tags={tag.TARGET: f"queue://{queue}"})


class ConnectionSuite(GuardCases, KeyCases, LeavingCases, BoundsCases):
    """The contract of `Connection`; each test opens a connection to a running engine of its own."""

    async def test_create_get_settle(self) -> None:
        """Records come back typed, with every field, and settling is seen by the next look."""
        async with self.connected() as connection:
            id = fresh_id()
            param = Value({"name": "é"}, 'text "with" \\ and \u2028')
            create = r.PromiseCreate(id, NEVER_MS, param, {"a": "b"})
            created = (await ask(connection, create, a.PromiseResult)).promise
            assert (created.id, created.state) == (id, PromiseState.PENDING)
            assert (created.param, created.tags) == (param, {"a": "b"})
            settle = r.PromiseSettle(id, PromiseState.RESOLVED, Value(data="7"))
            settled = (await ask(connection, settle, a.PromiseResult)).promise
            assert settled.value == Value(data="7")
            assert settled.settled_at is not None
            assert (await ask(connection, r.PromiseGet(id), a.PromiseResult)).promise == settled

    async def test_an_explanation(self) -> None:
        """Why work does not run comes back typed, nested records too."""
        async with self.connected() as connection:
            id, queue = fresh_id(), fresh_id("q")
            await ask(connection, r.QueuePut(queue, concurrency=1), a.QueueResult)
            for each in (f"{id}a", f"{id}b"):
                create = r.PromiseCreate(each, NEVER_MS, tags={tag.TARGET: f"queue://{queue}"})
                await ask(connection, create, a.PromiseResult)
            await ask(connection, r.TaskClaim([queue], "w", 60_000), a.ClaimResult)
            found = await ask(connection, TaskExplain(f"{id}b"), Explanation)
            assert [each.kind for each in found.reasons] == ["concurrency", "no_worker", "line"]
            assert [(each.id, each.pid) for each in found.reasons[0].holders] == [(f"{id}a", "w")]
            assert (found.task, found.before, found.workers) == (TaskState.PENDING, 0, 0)

    async def test_refusals_are_answers(self) -> None:
        """`send` returns what the engine said no with; `call` raises the matching error."""
        async with self.connected() as connection:
            missing = await connection.send(r.PromiseGet(fresh_id()))
            assert (missing.status, type(missing.data)) == (404, str)
            invalid = await connection.send(r.PromiseCreate("", 1))
            assert (invalid.status, type(invalid.data)) == (400, str)
            for request, error in (
                (r.PromiseGet(fresh_id()), NotFoundError),
                (r.TaskHalt(fresh_id()), NotFoundError),
            ):
                try:
                    await call(connection, request)
                except error:
                    continue
                raise AssertionError(f"{request.kind} did not raise {error.__name__}")

    async def test_lease_from_claim_to_fulfilment(self) -> None:
        """The life of a job: claim, a step under the lease, heartbeat, fulfil; a stale version is
        refused."""
        async with self.connected() as connection:
            id, queue = fresh_id("job"), fresh_id("queue")
            await ask(connection, job(id, queue), a.PromiseResult)
            claim = r.TaskClaim([queue], "worker", 60_000, limit=10)
            (lease,) = (await ask(connection, claim, a.ClaimResult)).tasks
            assert (lease.task.id, lease.task.state) == (id, TaskState.ACQUIRED)
            assert lease.promise.id == id
            version = lease.task.version
            step = r.PromiseCreate(f"{id}.1", NEVER_MS, tags={tag.PARENT: id})
            fence = r.TaskFence(id, version, r.CreateAction(step))
            inner = (await ask(connection, fence, a.FenceResult)).action
            assert inner.head.status == 200
            assert isinstance(inner.data, a.PromiseResult)
            record = r.TaskRecordStep(
                id, version, r.PromiseCreate(f"{id}.2", NEVER_MS), PromiseState.RESOLVED
            )
            done = (await ask(connection, record, a.PromiseResult)).promise
            assert done.state is PromiseState.RESOLVED
            beat = r.TaskHeartbeat("worker", [r.TaskRef(id, version)], report=True)
            await ask(connection, beat, a.HeartbeatResult)
            settle = r.PromiseSettle(id, PromiseState.RESOLVED)
            stale = await connection.send(r.TaskFulfill(id, version + 1, r.SettleAction(settle)))
            assert stale.status == 409
            fulfill = r.TaskFulfill(id, version, r.SettleAction(settle))
            fulfilled = (await ask(connection, fulfill, a.PromiseResult)).promise
            assert fulfilled.state is PromiseState.RESOLVED

    async def test_suspend_answers_both_ways(self) -> None:
        """A suspend on what is open answers with nothing, on what is settled with 300 and a preload."""
        async with self.connected() as connection:
            id, queue, awaited = fresh_id("flow"), fresh_id("queue"), fresh_id("signal")
            await ask(connection, job(id, queue), a.PromiseResult)
            external = r.PromiseCreate(awaited, NEVER_MS, tags={tag.EXTERNAL: "true"})
            await ask(connection, external, a.PromiseResult)
            claim = r.TaskClaim([queue], "worker", 60_000)
            (lease,) = (await ask(connection, claim, a.ClaimResult)).tasks
            actions = [r.CallbackAction(r.PromiseRegisterCallback(awaited, id))]
            suspend = r.TaskSuspend(id, lease.task.version, actions)
            response = await connection.send(suspend)
            assert (response.status, type(response.data)) == (200, a.Nothing)
            settle = r.PromiseSettle(awaited, PromiseState.RESOLVED)
            await ask(connection, settle, a.PromiseResult)
            (lease,) = (await ask(connection, claim, a.ClaimResult)).tasks
            response = await connection.send(r.TaskSuspend(id, lease.task.version, actions))
            assert (response.status, type(response.data)) == (300, a.PreloadResult)

    async def test_preload_goes_on_in_pages(self) -> None:
        """What a claim's preload leaves out is read page by page."""
        async with self.connected() as connection:
            id, queue = fresh_id("flow"), fresh_id("queue")
            await ask(connection, job(id, queue), a.PromiseResult)
            children = {f"{id}.{number}" for number in range(5)}
            for child in children:
                create = r.PromiseCreate(child, NEVER_MS, tags={tag.PARENT: id})
                await ask(connection, create, a.PromiseResult)
            claim = r.TaskClaim([queue], "worker", 60_000, preload=2)
            (lease,) = (await ask(connection, claim, a.ClaimResult)).tasks
            found = {promise.id for promise in lease.preload}
            assert len(found) == 2
            cursor = lease.more
            while cursor is not None:
                more = r.PromiseChildren(id, cursor, 2)
                page = await ask(connection, more, a.PreloadResult)
                found |= {promise.id for promise in page.preload}
                cursor = page.more
            assert found == children

    async def test_failed_attempt_and_dead_letter(self) -> None:
        """A final nack says its outcome; the dead letter is listed, read and replayed."""
        async with self.connected() as connection:
            id, queue = fresh_id("job"), fresh_id("queue")
            await ask(connection, job(id, queue), a.PromiseResult)
            claim = r.TaskClaim([queue], "worker", 60_000)
            (lease,) = (await ask(connection, claim, a.ClaimResult)).tasks
            nack = r.TaskNack(id, lease.task.version, error=Value(data="bad"), final="reject")
            assert (await ask(connection, nack, a.NackResult)).outcome == "rejected"
            letters = (await ask(connection, r.DeadList(queue=queue), a.DeadLetterPage)).letters
            assert [letter.id for letter in letters] == [id]
            letter = (await ask(connection, r.DeadGet(id), a.DeadLetterResult)).letter
            assert letter.error == Value(data="bad")
            (replay,) = (await ask(connection, r.DeadReplay([id]), a.ReplayResult)).replays
            assert replay.status == 200

    async def test_schedules(self) -> None:
        """A schedule is created, read, listed and deleted."""
        async with self.connected() as connection:
            id = fresh_id("schedule")
            create = r.ScheduleCreate(id, "0 3 1 1 *", f"{id}.{{{{.timestamp}}}}", 1_000)
            created = (await ask(connection, create, a.ScheduleResult)).schedule
            got = (await ask(connection, r.ScheduleGet(id), a.ScheduleResult)).schedule
            assert got == created
            listed = (await ask(connection, r.ScheduleSearch(), a.SchedulePage)).schedules
            assert created in listed
            await ask(connection, r.ScheduleDelete(id), a.Nothing)
            assert (await connection.send(r.ScheduleGet(id))).status == 404

    async def test_schedules_in_full(self) -> None:
        """Put, paused, triggered, resumed, filled in afterwards."""
        async with self.connected() as connection:
            id = fresh_id("schedule")
            put = s.SchedulePut(
                id,
                "{{.id}}.{{.timestamp}}",
                60_000,
                every=3_600_000,
                jitter=9,
                overlap=Overlap.QUEUE,
                catchup=Catchup.NONE,
                promise_tags={tag.TARGET: f"queue://{id}"},
            )
            record = (await ask(connection, put, a.ScheduleResult)).schedule
            assert (record.every, record.jitter, record.paused) == (3_600_000, 9, False)
            assert (await ask(connection, put, a.ScheduleResult)).schedule == record
            paused = (await ask(connection, s.SchedulePause(id), a.ScheduleResult)).schedule
            assert paused == msgspec.structs.replace(record, paused=True)
            trigger = s.ScheduleTrigger(id, "by-hand")
            fired = (await ask(connection, trigger, a.PromiseResult)).promise
            assert fired.id == f"{id}.trigger.by-hand"
            resumed = (await ask(connection, s.ScheduleResume(id), a.ScheduleResult)).schedule
            assert resumed == record
            span = s.ScheduleBackfill(id, record.created_at, record.created_at + 1)
            assert (await ask(connection, span, a.ScheduleResult)).schedule == record
            await ask(connection, r.ScheduleDelete(id), a.Nothing)

    async def test_search_pages(self) -> None:
        """A search goes on where its cursor says and ends without one."""
        async with self.connected() as connection:
            mark = fresh_id("mark")
            ids = sorted(fresh_id() for _ in range(5))
            for id in ids:
                create = r.PromiseCreate(id, NEVER_MS, tags={"mark": mark})
                await ask(connection, create, a.PromiseResult)
            found: list[str] = []
            cursor: str | None = None
            while True:
                search = r.PromiseSearch(None, {"mark": mark}, 2, cursor)
                page = await ask(connection, search, a.PromisePage)
                found += [promise.id for promise in page.promises]
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == ids

    async def test_many_at_once_each_get_their_own(self) -> None:
        """Thousands of concurrent requests are each answered with their own record."""
        async with self.connected() as connection:
            ids = [fresh_id() for _ in range(3_000)]
            answers = await asyncio.gather(
                *(ask(connection, r.PromiseCreate(id, NEVER_MS), a.PromiseResult) for id in ids)
            )
            assert [answer.promise.id for answer in answers] == ids

    async def test_wait_ends_with_the_settlement(self) -> None:
        """A wait is answered when the promise settles, while other requests go through."""
        async with self.connected() as connection:
            id = fresh_id()
            create = r.PromiseCreate(id, NEVER_MS, tags={tag.EXTERNAL: "true"})
            await ask(connection, create, a.PromiseResult)
            waiting = asyncio.ensure_future(connection.send(r.PromiseWait(id, 30_000)))
            settle = r.PromiseSettle(id, PromiseState.REJECTED)
            await ask(connection, settle, a.PromiseResult)
            async with asyncio.timeout(10):
                response = await waiting
            assert isinstance(response.data, a.PromiseResult)
            assert response.data.promise.state is PromiseState.REJECTED

    async def test_wait_ends_at_its_timeout(self) -> None:
        """A wait for a promise that stays open answers with the pending record."""
        async with self.connected() as connection:
            id = fresh_id()
            await ask(connection, r.PromiseCreate(id, NEVER_MS), a.PromiseResult)
            waited = (await ask(connection, r.PromiseWait(id, 20), a.PromiseResult)).promise
            assert waited.state is PromiseState.PENDING

    async def test_waiting_claim_gets_work_that_comes(self) -> None:
        """A claim that waits is answered when a job comes, and not before."""
        async with self.connected() as connection:
            id, queue = fresh_id("job"), fresh_id("queue")
            claim = r.TaskClaim([queue], "worker", 60_000, wait=20_000)
            claiming = asyncio.ensure_future(ask(connection, claim, a.ClaimResult))
            await ask(connection, job(id, queue), a.PromiseResult)
            async with asyncio.timeout(10):
                (lease,) = (await claiming).tasks
            assert lease.task.id == id

    async def test_claim_that_was_given_up_takes_nothing(self) -> None:
        """A worker that left while its claim waited does not get the work that comes afterwards."""
        async with self.connected() as connection:
            id, queue = fresh_id("job"), fresh_id("queue")
            claim = r.TaskClaim([queue], "gone", 60_000, wait=30_000)
            claiming = asyncio.ensure_future(connection.send(claim))
            # A few exchanges before and after, so that the engine has seen it come and go.
            for _ in range(_EXCHANGES):
                await connection.send(r.PromiseGet(id))
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            for _ in range(_EXCHANGES):
                await connection.send(r.PromiseGet(id))
            await ask(connection, job(id, queue), a.PromiseResult)
            claim = r.TaskClaim([queue], "here", 60_000, wait=2_000)
            tasks = (await ask(connection, claim, a.ClaimResult)).tasks
            assert [lease.task.pid for lease in tasks] == ["here"]

    async def test_request_id_makes_a_lease_request_repeatable(self) -> None:
        """The same fulfil under the same request id answers the same; under another it is stale."""
        async with self.connected() as connection:
            id, queue = fresh_id("job"), fresh_id("queue")
            await ask(connection, job(id, queue), a.PromiseResult)
            claim = r.TaskClaim([queue], "worker", 60_000)
            first = await call(connection, claim, request_id="claim-1")
            again = await call(connection, claim, request_id="claim-1")
            assert first == again
            assert isinstance(first.data, a.ClaimResult)
            version = first.data.tasks[0].task.version
            settle = r.SettleAction(r.PromiseSettle(id, PromiseState.RESOLVED, Value(data="1")))
            fulfill = r.TaskFulfill(id, version, settle)
            once = await call(connection, fulfill, request_id="fulfill-1")
            assert await call(connection, fulfill, request_id="fulfill-1") == once
            try:
                await call(connection, fulfill, request_id="fulfill-2")
            except ConflictError:
                return
            raise AssertionError("a fulfilled task was fulfilled again")

    async def test_debug_requests(self) -> None:
        """The whole state comes back typed, and a tick answers a list."""
        async with self.connected() as connection:
            id = fresh_id()
            await ask(connection, r.DebugStart(), a.Nothing)
            await ask(connection, job(id, fresh_id("queue")), a.PromiseResult)
            snapshot = await ask(connection, r.DebugSnap(), a.Snapshot)
            assert id in [promise.id for promise in snapshot.promises]
            tick = await call(connection, r.DebugTick(1))
            assert tick.data == []
            await ask(connection, r.DebugStop(), a.Nothing)

    async def test_closed_connection_refuses(self) -> None:
        """After `close`, which may come twice, every request raises `ConnectionFailedError`."""
        async with self.connected() as connection:
            await connection.send(r.PromiseGet(fresh_id()))
            await connection.close()
            await connection.close()
            try:
                await connection.send(r.PromiseGet(fresh_id()))
            except ConnectionFailedError:
                return
            raise AssertionError("a closed connection sent a request")
