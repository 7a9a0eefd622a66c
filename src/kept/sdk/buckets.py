"""Token buckets for calls to the outside, shared by all processes (protocol B5)."""

from __future__ import annotations

from datetime import timedelta

from kept.client.connection import call
from kept.errors import RateLimitedError
from kept.protocol.guard_requests import BucketTake
from kept.protocol.responses import BucketResult
from kept.sdk import payload
from kept.sdk.held import Opens


class Bucket:
    """A bucket that gains `limit` tokens in each period and holds at most its burst."""

    def __init__(self, opens: Opens, take: BucketTake) -> None:
        self._opens = opens
        self._take = take

    async def take(self, cost: int = 1, *, wait: timedelta | float | None = None) -> int:
        """Takes `cost` tokens and answers how many whole ones are left.

        It waits until they are there: as long as it takes, or at most `wait` (a timedelta or
        seconds), where 0 refuses at once. Raises `RateLimitedError` as soon as it is known that they
        will not be there in time, and `BadRequestError` for a cost above the burst.
        """
        connection, runtime = self._opens()
        asked = self._take
        request = BucketTake(asked.key, asked.limit, asked.period, cost, asked.burst)
        end = None if wait is None else runtime.monotonic() + payload.as_seconds(wait)
        while True:
            result = (await call(connection, request)).data
            assert isinstance(result, BucketResult)
            if result.granted:
                return result.remaining
            pause = result.retry_after / 1_000
            if end is not None and runtime.monotonic() + pause > end:
                text = f"{asked.key!r} has {cost} tokens in {pause:g} s"
                raise RateLimitedError(asked.key, text, pause)
            await runtime.sleep(pause)
