"""Requests of locks, slots, buckets and guards over HTTP: what is wrong is a 400, and what a refusal
says to programs is in its head."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kept.engine.engine import Engine
from kept.protocol.guard_requests import GUARD_REQUESTS
from kept.protocol.limits import (
    MAX_BUCKET_PERIOD_MS,
    MAX_BUCKET_TOKENS,
    MAX_GUARD_RETENTION_MS,
    MAX_HOLDER_BYTES,
    MAX_ID_BYTES,
    MAX_LOCK_TTL_MS,
    MAX_LOCK_WAIT_MS,
    MAX_SLOTS,
)
from kept.runtime import SystemRuntime
from kept.stores.memory import MemoryStore
from tests.unit.server.support import RunningDoor, envelope, running_door

GOOD: dict[str, dict[str, Any]] = {
    "lock.acquire": {"resource": "r", "holder": "h", "ttl": 60_000},
    "lock.heartbeat": {"resource": "r", "holder": "h", "fence": 1},
    "lock.release": {"resource": "r", "holder": "h", "fence": 1},
    "lock.get": {"resource": "r"},
    "lock.search": {},
    "slot.acquire": {"key": "k", "limit": 2, "holder": "h", "ttl": 60_000},
    "slot.heartbeat": {"key": "k", "holder": "h"},
    "slot.release": {"key": "k", "holder": "h"},
    "slot.get": {"key": "k"},
    "bucket.take": {"key": "k", "limit": 2, "period": 1_000},
    "guard.advance": {"key": "k", "revision": 1},
    "guard.get": {"key": "k"},
    "guard.search": {},
    "guard.delete": {"key": "k"},
}
BAD_TEXTS = ("", "\0", "a\0b", "\ud800", 1, None, [], {})
BAD_FIELDS: dict[str, tuple[Any, ...]] = {
    "resource": (*BAD_TEXTS, "é" * MAX_ID_BYTES),
    "key": (*BAD_TEXTS, "x" * (MAX_ID_BYTES + 1)),
    "holder": (*BAD_TEXTS, "x" * (MAX_HOLDER_BYTES + 1)),
    "ttl": (0, -1, 1.5, "1", None, MAX_LOCK_TTL_MS + 1, 2**70),
    "wait": (-1, 0.5, "0", None, MAX_LOCK_WAIT_MS + 1, 2**70),
    "keep": (1, "true", None),
    "fence": (-1, 1.5, "1", None, 2**53),
    "limit": (0, -1, 1.5, "1", 2**70),
    "period": (0, -1, 1.5, "1", None, MAX_BUCKET_PERIOD_MS + 1),
    "cost": (0, -1, 1.5, None, 3, MAX_BUCKET_TOKENS + 1),
    "burst": (0, -1, 1.5, "1", MAX_BUCKET_TOKENS + 1),
    "revision": (-1, 1.5, "1", None, 2**53),
    "retention": (0, -1, 1.5, "1", MAX_GUARD_RETENTION_MS + 1),
    "prefix": ("\0", "\ud800", 1, []),
    "cursor": ("\0", "\ud800", 1, []),
}
OWN: dict[str, tuple[str, ...]] = {
    "lock.acquire": ("wait", "keep"),
    "slot.acquire": ("wait", "keep"),
    "lock.search": ("prefix", "cursor", "limit"),
    "guard.search": ("prefix", "cursor", "limit"),
    "bucket.take": ("cost", "burst"),
    "guard.advance": ("retention",),
}


@asynccontextmanager
async def real_door() -> AsyncIterator[RunningDoor]:
    """A door to a real engine."""
    engine = Engine(MemoryStore(SystemRuntime()), SystemRuntime())
    await engine.start()
    try:
        async with running_door() as door:
            door.engine.answer = engine.submit
            yield door
    finally:
        await engine.stop()


async def post(door: RunningDoor, kind: str, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the envelope of an answer."""
    status, _, answer = await door.post(envelope(kind, data))
    assert answer["head"]["status"] == status
    return status, answer


@pytest.mark.parametrize("kind", sorted(GOOD))
async def test_each_field_is_checked(kind: str) -> None:
    """Wrong types, wrong bounds, NUL, lone surrogates: 400 each, with the field's name in the text."""
    async with real_door() as door:
        status, answer = await post(door, kind, GOOD[kind])
        assert status in (200, 404, 409), answer
        for field in (*GOOD[kind], *OWN.get(kind, ())):
            for bad in BAD_FIELDS[field]:
                status, answer = await post(door, kind, {**GOOD[kind], field: bad})
                assert status == 400, (field, bad, answer)
                assert isinstance(answer["data"], str)
        for field in GOOD[kind]:
            data = {name: value for name, value in GOOD[kind].items() if name != field}
            status, _ = await post(door, kind, data)
            assert status == 400, field


def test_every_kind_is_tried() -> None:
    """What this file tries is all there is."""
    assert set(GOOD) == {request.kind for request in GUARD_REQUESTS}


async def test_the_bounds_themselves_are_allowed() -> None:
    """The largest of everything is stored and read again."""
    async with real_door() as door:
        name, holder = "é" * (MAX_ID_BYTES // 2), "x" * MAX_HOLDER_BYTES
        for kind, data in (
            ("lock.acquire", {"resource": name, "holder": holder, "ttl": MAX_LOCK_TTL_MS}),
            ("slot.acquire", {"key": name, "limit": MAX_SLOTS, "holder": holder, "ttl": 1}),
            ("guard.advance", {"key": name, "revision": 2**53 - 1}),
            ("bucket.take", {"key": name, "limit": MAX_BUCKET_TOKENS, "period": 1}),
        ):
            status, answer = await post(door, kind, data)
            assert status == 200, answer
        _, answer = await post(door, "lock.get", {"resource": name})
        assert answer["data"]["lock"]["holder"] == holder


async def test_a_refusal_says_more_to_programs() -> None:
    """The data stays a bare text, as of every error; the head has what a program needs."""
    async with real_door() as door:
        _, granted = await post(door, "lock.acquire", GOOD["lock.acquire"])
        other = {**GOOD["lock.acquire"], "holder": "other"}
        status, refused = await post(door, "lock.acquire", other)
        assert (status, type(refused["data"])) == (409, str)
        detail = {"holder": "h", "expiresAt": granted["data"]["expiresAt"]}
        assert refused["head"]["kept:detail"] == detail
        assert "kept:detail" not in granted["head"]


KEYS = st.sampled_from(["a", "b"])
NUMBERS = st.integers(0, 5) | st.sampled_from([2**31, 2**53 - 1, 2**53, -1])
ANY = st.fixed_dictionaries(
    {},
    optional={
        "resource": KEYS,
        "key": KEYS,
        "holder": KEYS,
        "ttl": NUMBERS,
        "fence": NUMBERS,
        "limit": NUMBERS,
        "period": NUMBERS,
        "cost": NUMBERS,
        "burst": NUMBERS,
        "revision": NUMBERS,
        "retention": NUMBERS,
        "prefix": KEYS,
        "keep": st.booleans(),
    },
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(sorted(GOOD)), ANY), min_size=1, max_size=25))
async def test_whatever_is_asked_gets_an_answer(asked: list[tuple[str, dict[str, Any]]]) -> None:
    """Valid and invalid requests in any order: never a fault of the server."""
    async with real_door() as door:
        for kind, data in asked:
            status, answer = await post(door, kind, {**GOOD[kind], **data})
            assert status in (200, 400, 404, 409), answer
