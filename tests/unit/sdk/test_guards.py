"""Locks, slots, buckets and guards of an app: held while a block runs, told at once when lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import timedelta

import pytest

import kept
from kept.client.connection import call
from kept.protocol import requests as r
from kept.protocol.guard_requests import (
    LockAcquire,
    LockGet,
    LockHeartbeat,
    LockRelease,
    SlotGet,
)
from kept.protocol.responses import UNAVAILABLE, LockRecord, LockResult, Response, SlotResult


@asynccontextmanager
async def opened() -> AsyncIterator[kept.App]:
    """An app over an engine of its own; nothing in it may take long."""
    async with kept.App("memory://", worker=False) as app, asyncio.timeout(20):
        yield app


async def look(app: kept.App, resource: str = "ledger") -> LockRecord:
    found = (await call(app.connection, LockGet(resource))).data
    assert isinstance(found, LockResult)
    return found.lock


async def take_away(app: kept.App) -> None:
    """What an operator does with `kept lock release`."""
    lock = await look(app)
    assert lock.holder is not None
    await call(app.connection, LockRelease("ledger", lock.holder, lock.fence))


async def free(app: kept.App) -> None:
    async with asyncio.timeout(10):
        while (await look(app)).holder is not None:
            pass


async def test_a_lock_is_held_while_the_block_runs() -> None:
    """With a fence that rises, and free again after it, also where the block fails."""
    async with opened() as app:
        fences = []
        for error in (None, ValueError("the block's own")):
            with nullcontext() if error is None else pytest.raises(ValueError, match="own"):
                async with app.lock("ledger", ttl=30) as lease:
                    fences.append(lease.fence)
                    held = await look(app)
                    assert (held.holder, held.fence) == (lease.holder, lease.fence)
                    if error is not None:
                        raise error
            assert (await look(app)).holder is None
            assert not lease.lost.is_set()
        assert fences == sorted(set(fences))


async def test_a_held_lock_is_refused_or_waited_for() -> None:
    """With wait=0 at once, with the holder's expiry; with a wait after it; else when it is free."""
    async with opened() as app:
        async with app.lock("ledger") as first:
            for wait in (0, 0.02):
                with pytest.raises(kept.LockHeldError) as refused:
                    async with app.lock("ledger", wait=wait):
                        raise AssertionError("two at a time")
                assert refused.value.holder == first.holder
                assert refused.value.expires_at == (await look(app)).expires_at
                assert (refused.value.key, refused.value.code) == ("ledger", "lock_held")

            async def second() -> int:
                async with app.lock("ledger", ttl=timedelta(seconds=5)) as lease:
                    return lease.fence

            waiting = asyncio.ensure_future(second())
            while (await look(app)).waiting == 0:
                pass
        assert await waiting > first.fence


async def test_a_lock_is_renewed() -> None:
    """It outlives its ttl for as long as the block runs."""
    async with opened() as app, app.lock("ledger", ttl=0.3) as lease:
        first = (await look(app)).expires_at
        assert first is not None
        while ((await look(app)).expires_at or 0) < first + 300:
            pass
        assert not lease.lost.is_set()


async def test_a_loss_cancels_the_block() -> None:
    """The block stops at once and raises, and its task can go on."""
    async with opened() as app:
        leases = []

        async def block() -> None:
            async with app.lock("ledger", ttl=0.2) as lease:
                leases.append(lease)
                await take_away(app)
                await asyncio.Event().wait()

        with pytest.raises(kept.LockLostError) as lost:
            await block()
        assert leases[0].lost.is_set()
        assert lost.value.code == "lock_lost"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)


async def test_a_block_that_shields_itself_hears_of_the_loss() -> None:
    """Code that catches the cancelling still gets the error at the end of the block."""
    async with opened() as app:

        async def block() -> None:
            async with app.lock("ledger", ttl=0.2) as lease:
                await take_away(app)
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                assert lease.lost.is_set()

        with pytest.raises(kept.LockLostError):
            await block()
        await asyncio.sleep(0)


async def test_a_loss_found_at_the_end_is_told() -> None:
    """A block that was over before any heartbeat learns it from the release."""
    async with opened() as app:
        with pytest.raises(kept.LockLostError):
            async with app.lock("ledger"):
                await take_away(app)


async def test_the_blocks_own_error_comes_first() -> None:
    """A loss does not hide what went wrong in the block."""
    async with opened() as app:

        async def block() -> None:
            async with app.lock("ledger"):
                await take_away(app)
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await block()


async def test_cancelled_by_somebody_else() -> None:
    """Cancelling of the task's own goes through the block as it does everywhere, and frees it."""
    async with opened() as app:
        entered = asyncio.Event()

        async def block() -> None:
            async with app.lock("ledger"):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(block())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await free(app)


async def test_cancelled_while_it_waits() -> None:
    """Whoever gives up waiting stands in nobody's way, and holds nothing."""
    async with opened() as app:
        async with app.lock("ledger"):
            task = asyncio.ensure_future(app.lock("ledger").__aenter__())
            while (await look(app)).waiting == 0:
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while (await look(app)).waiting:
                pass
        async with app.lock("ledger", wait=0):
            pass


class Unheard:
    """A connection on which heartbeats come to nothing: refused for now, or never answered."""

    def __init__(self, app: kept.App, *, hangs: bool) -> None:
        assert app._services is not None
        self._inner = app._services.connection
        app._services.connection = self
        self._hangs = hangs

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        if isinstance(request, LockHeartbeat):
            if self._hangs:
                await asyncio.Event().wait()
            return Response(UNAVAILABLE, "later")
        return await self._inner.send(request, request_id=request_id)

    async def close(self) -> None:
        await self._inner.close()


@pytest.mark.parametrize("hangs", [True, False])
async def test_without_an_answer_it_is_lost_after_its_ttl(hangs: bool) -> None:  # noqa: FBT001
    """No later than others can have it, whatever the network does."""
    async with opened() as app:
        Unheard(app, hangs=hangs)
        started = asyncio.get_running_loop().time()
        with pytest.raises(kept.LockLostError):
            async with app.lock("ledger", ttl=0.2):
                await asyncio.Event().wait()
        assert 0.1 < asyncio.get_running_loop().time() - started < 5


async def test_one_object_is_one_block_at_a_time() -> None:
    """It may be used again, but not twice at once."""
    async with opened() as app:
        lock = app.lock("ledger")
        for _ in range(2):
            async with lock:
                with pytest.raises(RuntimeError, match="already"):
                    await lock.__aenter__()


async def test_slots_hold_up_to_the_limit() -> None:
    """Many tasks, never more than the limit at a time, and all get their turn."""
    async with opened() as app:
        inside = most = done = 0

        async def work() -> None:
            nonlocal inside, most, done
            async with app.slot("api", limit=3) as lease:
                assert lease.fence == 0
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1
                done += 1

        async with asyncio.timeout(20):
            await asyncio.gather(*(work() for _ in range(20)))
        assert (most, done) == (3, 20)
        left = (await call(app.connection, SlotGet("api"))).data
        assert isinstance(left, SlotResult)
        assert left.holders == []


async def test_slots_that_are_all_held() -> None:
    """Refused, with the time at which the first of them ends unless it is renewed."""
    async with opened() as app:
        async with app.slot("api", limit=1):
            with pytest.raises(kept.LockHeldError) as refused:
                async with app.slot("api", limit=1, wait=0):
                    raise AssertionError("one too many")
        assert refused.value.holder is None
        assert refused.value.expires_at is not None


async def test_a_bucket_refuses_or_waits() -> None:
    """Tokens that are there are taken; others are waited for, unless that takes too long."""
    async with opened() as app:
        bucket = app.bucket("api", limit=2, period=0.1)
        assert [await bucket.take(), await bucket.take()] == [1, 0]
        for wait in (0, 0.01):
            with pytest.raises(kept.RateLimitedError) as refused:
                await bucket.take(2, wait=wait)
            assert 0.01 < refused.value.retry_after <= 0.1
        async with asyncio.timeout(10):
            assert await bucket.take(2) == 0
        with pytest.raises(kept.BadRequestError):
            await bucket.take(3)


async def test_a_guard_tells_late_and_repeated() -> None:
    """Late is an error that names the current revision, repeated is told."""
    async with opened() as app:
        assert await app.guard("customer-7", 1) == (1, False)
        assert await app.guard("customer-7", 3, retention=timedelta(days=1)) == (3, False)
        assert await app.guard("customer-7", 3) == (3, True)
        with pytest.raises(kept.StaleRevisionError) as late:
            await app.guard("customer-7", 2)
        assert (late.value.current, late.value.code) == (3, "stale_revision")
        with pytest.raises(kept.BadRequestError):
            await app.guard("", 2)


async def test_guards_are_for_steps_and_jobs_not_for_durable_code() -> None:
    """In a durable function each is refused, with its line; in its steps and in jobs all work."""
    app = kept.App("memory://")
    refused: list[str] = []

    @app.function
    async def guarded_step(n: int) -> int:
        async with app.lock("ledger") as lease, app.slot("api", limit=1):
            await app.bucket("api", limit=10).take()
            await app.guard("customer-7", n)
            return lease.fence

    @app.function
    async def workflow(ctx: kept.Context) -> int:
        for use in (
            lambda: app.lock("ledger"),
            lambda: app.slot("api", limit=1),
            lambda: app.bucket("api", limit=1),
        ):
            try:
                use()
            except kept.NotDurableError as error:
                refused.append(str(error))
        try:
            await app.guard("customer-7", 1)
        except kept.NotDurableError as error:
            refused.append(str(error))
        return await ctx.run(guarded_step, 1)

    async with app, asyncio.timeout(20):
        assert await app.run(workflow) > 0
        assert await app.run(guarded_step, 2) > 0
    assert len(refused) == 4
    assert all("test_guards.py" in text for text in refused)


async def test_a_grant_whose_answer_is_lost_is_given_back() -> None:
    """An acquire that was cancelled after it was granted leaves no lock behind for its ttl."""
    async with opened() as app:
        assert app._services is not None
        inner = app._services.connection
        granted = asyncio.Event()

        class Losing:
            async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
                response = await inner.send(request, request_id=request_id)
                if isinstance(request, LockAcquire):
                    granted.set()
                    await asyncio.Event().wait()
                return response

            async def close(self) -> None:
                await inner.close()

        app._services.connection = Losing()
        task = asyncio.ensure_future(app.lock("ledger").__aenter__())
        await granted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await free(app)
