"""Tenants (protocol B7): a token's claim names one, and nobody sees or touches another's records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jwt")

import jwt

from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.responses import Response
from kept.runtime import SystemRuntime
from kept.server.auth import AuthOptions, open_authenticator
from kept.stores.base import Store
from kept.stores.memory import MemoryStore
from kept.stores.sqlite import SqliteStore
from kept.transports.poll import PollTransport
from tests.unit.server.support import RunningDoor, envelope, running_door

SECRET = "a secret of at least thirty-two bytes"
NEVER = 9_007_199_254_740_991


def token(tenant: str | None, **claims: Any) -> str:
    named = {} if tenant is None else {"tenant": tenant}
    return jwt.encode({"exp": 2**40, "prefix": "", **named, **claims}, SECRET, algorithm="HS256")


class Site:
    """A door to an engine, and requests on behalf of tenants."""

    def __init__(self, door: RunningDoor, poll: PollTransport) -> None:
        self.door = door
        self.poll = poll

    async def ask(self, tenant: str | None, kind: str, /, **data: Any) -> tuple[int, Any]:
        body = envelope(kind, data, auth=token(tenant, role="admin"))
        status, _, answer = await self.door.post(body)
        return status, answer["data"]

    async def ok(self, tenant: str | None, kind: str, /, **data: Any) -> Any:
        status, answer = await self.ask(tenant, kind, **data)
        assert status == 200, (kind, answer)
        return answer

    async def job(self, tenant: str | None, id: str, target: str = "queue://q", **tags: str) -> Any:
        tags = {"resonate:target": target, **tags}
        return await self.ok(tenant, "promise.create", id=id, timeoutAt=NEVER, tags=tags)

    async def claimed(self, tenant: str | None, **options: Any) -> list[str]:
        data = {"queues": ["q"], "pid": "w", "ttl": 60_000, "limit": 10, **options}
        answer = await self.ok(tenant, "task.claim", **data)
        return [lease["task"]["id"] for lease in answer["tasks"]]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind."""
    runtime = SystemRuntime()
    if request.param == "memory":
        return MemoryStore(runtime)
    return SqliteStore(str(tmp_path / "kept.db"), runtime)


@asynccontextmanager
async def site(store: Store) -> AsyncIterator[Site]:
    """A server with tokens on a store."""
    runtime = SystemRuntime()
    poll = PollTransport(runtime, keep_alive_seconds=0.2)
    engine = Engine(store, runtime, EngineConfig(), transports=[poll])
    poll.on_connect = lambda _: engine.receiver_connected()
    await engine.start()
    try:
        authenticator = open_authenticator(AuthOptions(secret=SECRET), runtime)
        async with running_door(authenticator=authenticator) as door:
            asked = door.engine.asked

            def answer(request: r.Request) -> Awaitable[Response]:
                _, tenant, prefix = asked[-1]
                return engine.submit(request, r.RequestHead(), tenant, prefix)

            door.engine.answer = answer
            yield Site(door, poll)
    finally:
        await engine.stop()


NAMED: list[tuple[str, dict[str, Any]]] = [
    ("promise.get", {"id": "p"}),
    ("promise.settle", {"id": "p", "state": "resolved"}),
    ("promise.wait", {"id": "p", "timeout": 0}),
    ("promise.register_listener", {"awaited": "p", "address": "poll://any@g"}),
    ("promise.register_callback", {"awaited": "p", "awaiter": "p2"}),
    ("task.get", {"id": "p"}),
    ("task.acquire", {"id": "p", "version": 0, "pid": "w", "ttl": 1}),
    ("task.release", {"id": "p", "version": 1}),
    ("task.halt", {"id": "p"}),
    ("task.continue", {"id": "p"}),
    ("task.nack", {"id": "p", "version": 1}),
    ("schedule.get", {"id": "s"}),
    ("schedule.pause", {"id": "s"}),
    ("schedule.resume", {"id": "s"}),
    ("schedule.trigger", {"id": "s"}),
    ("schedule.backfill", {"id": "s", "from": 1, "to": 2}),
    ("schedule.delete", {"id": "s"}),
    ("queue.get", {"name": "q"}),
    ("queue.delete", {"name": "q"}),
    ("dead.get", {"id": "d"}),
    ("lock.get", {"resource": "l"}),
    ("guard.get", {"key": "k"}),
    ("guard.delete", {"key": "k"}),
]


async def test_another_tenants_record_is_not_there(store: Store) -> None:
    """A 404 for each request that names one, for a prefix of everything and for admins; its owner
    finds all of it unchanged. What a body says of a tenant counts for nothing."""
    async with site(store) as s:
        await s.job("a", "p")
        await s.job("a", "p2")
        await s.job("a", "d")
        await s.ok("a", "task.acquire", id="d", version=0, pid="w", ttl=60_000)
        await s.ok("a", "task.nack", id="d", version=1, final="reject")
        put = {"every": 3_600_000, "promiseId": "{{.timestamp}}", "promiseTimeout": 9}
        await s.ok("a", "schedule.put", id="s", **put)
        await s.ok("a", "queue.put", name="q", concurrency=1)
        await s.ok("a", "lock.acquire", resource="l", holder="h", ttl=60_000)
        await s.ok("a", "slot.acquire", key="k", limit=1, holder="h", ttl=60_000)
        await s.ok("a", "guard.advance", key="k", revision=3)
        before = [await s.ask("a", kind, **data) for kind, data in NAMED if kind.endswith("get")]
        for other in ("b", None):
            for kind, data in NAMED:
                status, _ = await s.ask(other, kind, tenant="a", **data)
                assert status == 404, (other, kind)
        after = [await s.ask("a", kind, **data) for kind, data in NAMED if kind.endswith("get")]
        assert after == before
        assert all(status == 200 for status, _ in after)


async def test_the_same_ids_are_different_records(store: Store) -> None:
    """Ids, locks, slots, revisions, dead letters, schedules: each tenant has its own."""
    async with site(store) as s:
        for tenant in ("a", "b", None):
            data = {"id": "p", "timeoutAt": NEVER, "param": {"data": str(tenant)}}
            created = await s.ok(tenant, "promise.create", **data)
            assert created["promise"]["param"] == {"data": str(tenant)}
            await s.ok(tenant, "lock.acquire", resource="l", holder=str(tenant), ttl=60_000)
            await s.ok(tenant, "slot.acquire", key="k", limit=1, holder="h", ttl=60_000)
            await s.ok(tenant, "guard.advance", key="k", revision=1)
            taken = await s.ok(tenant, "bucket.take", key="b", limit=1, period=3_600_000)
            assert taken
        await s.ok("a", "promise.settle", id="p", state="resolved")
        assert (await s.ok("b", "promise.get", id="p"))["promise"]["state"] == "pending"
        for tenant in ("a", "b", None):
            (found,) = (await s.ok(tenant, "promise.search"))["promises"]
            assert found["param"] == {"data": str(tenant)}


async def test_queues_and_their_limits_are_a_tenants_own(store: Store) -> None:
    """Claims, concurrency, pauses, counts; a claim that waits is not woken into another's work."""
    async with site(store) as s:
        await s.ok("a", "queue.put", name="q", concurrency=1)
        for tenant in ("a", "b"):
            for n in range(2):
                await s.job(tenant, f"{tenant}{n}")
        assert await s.claimed("a") == ["a0"]
        assert await s.claimed("b") == ["b0", "b1"]
        assert await s.claimed("b", wait=50) == []
        assert await s.claimed(None, wait=50) == []
        await s.ok("b", "queue.pause", name="q")
        await s.ok("a", "queue.put", name="q", concurrency=None)
        assert await s.claimed("a") == ["a1"]


async def test_a_poll_group_hears_its_own_tenant_only(store: Store) -> None:
    """The same group and worker id at two tenants: each gets its own executes and unblocks."""
    async with site(store) as s:
        heard: dict[str, list[bytes]] = {}
        streams = {tenant: s.poll.connect("g", "w", tenant) for tenant in ("a", "b")}
        assert s.poll.connections == 2
        runtime = SystemRuntime()

        async def listen(tenant: str) -> None:
            async for frame in streams[tenant].frames():
                heard.setdefault(tenant, []).append(frame)

        listeners = [runtime.spawn(listen(tenant), f"listen {tenant}") for tenant in streams]
        for target in ("poll://any@g", "poll://uni@g/w", "poll://any@g/w"):
            await s.job("a", f"of-a {target}", target=target)
        await s.job("b", "of-b", target="poll://any@g")
        await s.job(None, "of-nobody-here", target="poll://any@g")
        while sum(map(len, heard.values())) < 4:
            await runtime.sleep(0.01)
        for stream in streams.values():
            s.poll.disconnect(stream)
        for listener in listeners:
            await listener
        assert all(b"of-a" in frame for frame in heard["a"] if b"execute" in frame)
        assert len([frame for frame in heard["a"] if b"execute" in frame]) == 3
        assert all(b"of-b" in frame for frame in heard["b"] if b"execute" in frame)
