"""Connection suite: locks, slots, buckets and guards."""

from __future__ import annotations

import asyncio

from kept.client.connection import call
from kept.contract.connected import Connects, ask, fresh_id
from kept.errors import ConflictError
from kept.protocol import guard_requests as g
from kept.protocol import responses as a


class GuardCases(Connects):
    """Each request answered typed, refusals with what they say to programs, waits in order."""

    async def test_a_lock_from_grant_to_release(self) -> None:
        """Granted, refused to others with holder and expiry, held longer, shown, given back."""
        async with self.connected() as connection:
            name = fresh_id("lock")
            acquire = g.LockAcquire(name, "one", 60_000)
            grant = await ask(connection, acquire, a.LockGrant)
            again = await ask(connection, acquire, a.LockGrant)
            assert (again.fence, again.expires_at >= grant.expires_at) == (grant.fence, True)
            refused = await connection.send(g.LockAcquire(name, "two", 60_000))
            assert (refused.status, type(refused.data)) == (409, str)
            assert refused.detail is not None
            assert refused.detail["holder"] == "one"
            beat = g.LockHeartbeat(name, "one", grant.fence)
            longer = await ask(connection, beat, a.LeaseExtension)
            lock = (await ask(connection, g.LockGet(name), a.LockResult)).lock
            assert (lock.holder, lock.expires_at) == ("one", longer.expires_at)
            found = (await ask(connection, g.LockSearch(name), a.LockPage)).locks
            assert found == [lock]
            await ask(connection, g.LockRelease(name, "one", grant.fence), a.Nothing)
            assert (await connection.send(beat)).status == 409

    async def test_a_waiting_acquire_gets_what_is_given_back(self) -> None:
        """Those who wait get it one after another, in the order in which they came."""
        async with self.connected() as connection:
            name = fresh_id("lock")
            fence = (await ask(connection, g.LockAcquire(name, "0", 60_000), a.LockGrant)).fence
            waiting: list[asyncio.Future[a.LockGrant]] = []
            for holder in ("1", "2", "3"):
                acquire = g.LockAcquire(name, holder, 60_000, wait=30_000)
                waiting.append(asyncio.ensure_future(ask(connection, acquire, a.LockGrant)))
                while True:
                    lock = (await ask(connection, g.LockGet(name), a.LockResult)).lock
                    if lock.waiting == len(waiting):
                        break
            async with asyncio.timeout(20):
                for number, answer in enumerate(waiting):
                    await ask(connection, g.LockRelease(name, str(number), fence), a.Nothing)
                    grant = await answer
                    assert grant.fence > fence
                    fence = grant.fence

    async def test_a_waiting_acquire_that_is_given_up(self) -> None:
        """One whose caller left does not stand in the way of the next."""
        async with self.connected() as connection:
            name = fresh_id("lock")
            fence = (await ask(connection, g.LockAcquire(name, "one", 60_000), a.LockGrant)).fence
            acquire = g.LockAcquire(name, "gone", 60_000, wait=30_000)
            waiting = asyncio.ensure_future(connection.send(acquire))
            while (await ask(connection, g.LockGet(name), a.LockResult)).lock.waiting == 0:
                pass
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            async with asyncio.timeout(10):
                while (await ask(connection, g.LockGet(name), a.LockResult)).lock.waiting:
                    pass
            await ask(connection, g.LockRelease(name, "one", fence), a.Nothing)
            await ask(connection, g.LockAcquire(name, "two", 60_000), a.LockGrant)

    async def test_slots_and_buckets(self) -> None:
        """Slots up to the limit, tokens while there are any."""
        async with self.connected() as connection:
            key = fresh_id("slots")
            for holder in ("one", "two"):
                acquire = g.SlotAcquire(key, 2, holder, 60_000)
                await ask(connection, acquire, a.LeaseExtension)
            assert (await connection.send(g.SlotAcquire(key, 2, "three", 1))).status == 409
            await ask(connection, g.SlotHeartbeat(key, "two"), a.LeaseExtension)
            await ask(connection, g.SlotRelease(key, "one"), a.Nothing)
            left = await ask(connection, g.SlotGet(key), a.SlotResult)
            assert [each.holder for each in left.holders] == ["two"]
            take = g.BucketTake(key, 1, 3_600_000)
            granted = [(await ask(connection, take, a.BucketResult)).granted for _ in range(2)]
            assert granted == [True, False]

    async def test_guards(self) -> None:
        """A late revision is refused with the current one; guards are read, listed, deleted."""
        async with self.connected() as connection:
            key = fresh_id("guard")
            await ask(connection, g.GuardAdvance(key, 3), a.GuardAdvanceResult)
            again = await ask(connection, g.GuardAdvance(key, 3), a.GuardAdvanceResult)
            assert again.repeated
            try:
                await call(connection, g.GuardAdvance(key, 2))
            except ConflictError as late:
                assert late.detail == {"current": 3}
            else:
                raise AssertionError("a late revision was accepted")
            guard = (await ask(connection, g.GuardGet(key), a.GuardResult)).guard
            assert guard.current == 3
            page = await ask(connection, g.GuardSearch(key), a.GuardPage)
            assert page.guards == [guard]
            await ask(connection, g.GuardDelete(key), a.Nothing)
            assert (await connection.send(g.GuardGet(key))).status == 404
