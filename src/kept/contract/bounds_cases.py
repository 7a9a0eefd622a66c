"""Connection suite: values at their bounds, and one beyond."""

from __future__ import annotations

from typing import Final

from kept.contract.connected import Connects, ask, fresh_id
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol import responses as a
from kept.protocol import schedule_requests as s
from kept.protocol.limits import (
    MAX_BUCKET_PERIOD_MS,
    MAX_BUCKET_TOKENS,
    MAX_CLAIM_QUEUES,
    MAX_CLAIM_TASKS,
    MAX_CLAIM_WAIT_MS,
    MAX_INTEGER,
    MAX_LOCK_TTL_MS,
    MAX_SLOTS,
    MIN_EVERY_MS,
)
from kept.protocol.records import PromiseState

_HOUR_MS: Final = 3_600_000


class BoundsCases(Connects):
    """Whatever is out of its bounds is a 400 on every way to an engine, and changes nothing."""

    async def test_what_is_out_of_bounds_is_refused(self) -> None:
        """Numbers, texts and lists, at the top and inside of what a request holds."""
        async with self.connected() as connection:
            held = r.TaskRef(fresh_id(), -1)
            step = r.PromiseCreate(fresh_id(), -1)
            for request in (
                g.LockAcquire("k", "h", 0),
                g.LockAcquire("k", "h", MAX_LOCK_TTL_MS + 1),
                g.LockAcquire("k", "h", 1, wait=-1),
                g.LockAcquire("k", "", 1),
                g.SlotAcquire("k", 0, "h", 1),
                g.SlotAcquire("k", MAX_SLOTS + 1, "h", 1),
                g.BucketTake("k", 1, 0),
                g.BucketTake("k", 1, MAX_BUCKET_PERIOD_MS + 1),
                g.BucketTake("k", MAX_BUCKET_TOKENS + 1, 1),
                g.BucketTake("k", 5, 1, -1),
                g.BucketTake("k", 5, 1, 0),
                g.GuardAdvance("k", -1),
                g.GuardAdvance("k", MAX_INTEGER + 1),
                g.GuardAdvance("k", 1, 0),
                r.TaskClaim([], "w", 1),
                r.TaskClaim([""], "w", 1),
                r.TaskClaim([f"q{n}" for n in range(MAX_CLAIM_QUEUES + 1)], "w", 1),
                r.TaskClaim(["q"], "", 1),
                r.TaskClaim(["q"], "w", 0),
                r.TaskClaim(["q"], "w", 1, limit=0),
                r.TaskClaim(["q"], "w", 1, limit=MAX_CLAIM_TASKS + 1),
                r.TaskClaim(["q"], "w", 1, wait=MAX_CLAIM_WAIT_MS + 1),
                r.TaskNack("t", 0, delay=-1),
                r.TaskHeartbeat("w", [held]),
                r.TaskRecordStep("t", 0, step, PromiseState.RESOLVED),
                r.TaskAnnotate("t", 0, progress=1.5),
                r.QueuePut("q", aging=-1),
                s.SchedulePut("s", "p", 1, every=MIN_EVERY_MS - 1),
                s.SchedulePut("s", "p", -1, every=MIN_EVERY_MS),
            ):
                response = await connection.send(request)
                assert (response.status, type(response.data)) == (400, str), request
            for get in (g.LockGet("k"), g.GuardGet("k"), r.ScheduleGet("s")):
                assert (await connection.send(get)).status == 404
            slots = await ask(connection, g.SlotGet("k"), a.SlotResult)
            assert slots.holders == []

    async def test_what_is_at_its_bounds_is_taken(self) -> None:
        """The smallest and the largest that is allowed."""
        async with self.connected() as connection:
            key = fresh_id("k")
            await ask(connection, g.LockAcquire(key, "h", MAX_LOCK_TTL_MS), a.LockGrant)
            slot = g.SlotAcquire(key, MAX_SLOTS, "h", MAX_LOCK_TTL_MS)
            await ask(connection, slot, a.LeaseExtension)
            take = g.BucketTake(key, MAX_BUCKET_TOKENS, MAX_BUCKET_PERIOD_MS, MAX_BUCKET_TOKENS)
            taken = await ask(connection, take, a.BucketResult)
            assert (taken.granted, taken.remaining) == (True, 0)
            for revision in (0, MAX_INTEGER):
                advance = g.GuardAdvance(key, revision)
                advanced = await ask(connection, advance, a.GuardAdvanceResult)
                assert (advanced.current, advanced.repeated) == (revision, False)
            await ask(connection, r.TaskClaim([key], "w", 1, limit=MAX_CLAIM_TASKS), a.ClaimResult)
            put = s.SchedulePut(key, key, _HOUR_MS, every=MIN_EVERY_MS)
            await ask(connection, put, a.ScheduleResult)
