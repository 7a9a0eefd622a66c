"""Token buckets (protocol B5), in whole numbers only.

A bucket's level counts in parts of a token, `period` to one. So each ms adds exactly `limit` parts, and
nothing is ever rounded: in any span the bucket grants at most `limit * span / period + burst` tokens.
"""

from __future__ import annotations

from msgspec.structs import replace

from kept.machine.step import Step
from kept.protocol import guard_requests as g
from kept.protocol.entries import Bucket, Entry, EntryKey, EntryKind
from kept.protocol.limits import MAX_INTEGER
from kept.protocol.responses import OK, BucketResult, Response

# A full bucket is like none at all. It stays a little, so that a busy one is not looked at often.
_LINGER_MS = 60_000


def bucket_key(key: str) -> EntryKey:
    """What the entry of a bucket is known by."""
    return EntryKey(EntryKind.BUCKET, key)


def bucket_take(step: Step, request: g.BucketTake) -> Response:
    entry = step.records.entry(bucket_key(request.key))
    burst = request.limit if request.burst is None else request.burst
    full = Bucket(burst * request.period, step.now, request.limit, request.period, burst)
    bucket = full
    if entry is not None:
        assert isinstance(entry.data, Bucket)
        bucket = _converted(_filled(entry.data, step.now), full)
    missing = request.cost * bucket.period - bucket.level
    if missing > 0:
        retry_after = _divided_up(missing, bucket.limit)
        return Response(OK, BucketResult(False, bucket.level // bucket.period, retry_after))
    bucket = replace(bucket, level=-missing)
    step.records.put_entry(Entry(bucket_key(request.key), bucket, _forgotten_at(bucket)))
    return Response(OK, BucketResult(True, bucket.level // bucket.period, 0))


def look_at_bucket(step: Step, entry: Entry) -> None:
    """A bucket that is full is forgotten."""
    assert isinstance(entry.data, Bucket)
    assert _filled(entry.data, step.now).level == entry.data.burst * entry.data.period
    step.records.remove_entry(entry.key)


def _filled(bucket: Bucket, now: int) -> Bucket:
    """The bucket at `now` (ms), which a debug clock may set back."""
    gained = max(0, now - bucket.at) * bucket.limit
    level = min(bucket.level + gained, bucket.burst * bucket.period)
    return replace(bucket, level=level, at=max(now, bucket.at))


def _converted(bucket: Bucket, full: Bucket) -> Bucket:
    """The bucket under the settings that a request names: its tokens stay, as far as they fit."""
    level = bucket.level * full.period // bucket.period
    return replace(full, level=min(level, full.level), at=bucket.at)


def _forgotten_at(bucket: Bucket) -> int | None:
    missing = bucket.burst * bucket.period - bucket.level
    full_at = bucket.at + _divided_up(missing, bucket.limit) + _LINGER_MS
    return full_at if full_at <= MAX_INTEGER else None


def _divided_up(number: int, by: int) -> int:
    return -(-number // by)
