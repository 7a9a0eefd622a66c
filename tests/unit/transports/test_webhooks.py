"""Webhooks: signed, tried again until they arrive, never sent where they must not go (protocol A6)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

import kept
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.inquiries import DeliveriesResult, DeliveryRecord, PromiseDeliveries
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import MessageKind, PromiseState, Value
from kept.protocol.responses import PromiseResult
from kept.runtime import SystemRuntime
from kept.transports.base import DeliveryFailedError
from kept.transports.http import HttpPushTransport
from kept.transports.reach import networks_of
from kept.transports.webhooks import WebhookOptions
from tests.unit.engine.rig import ShiftedRuntime, WatchedStore, eventually, ok, running

OLD, NEW = "o" * 32, "n" * 32
SIGNED = WebhookOptions(secrets=(NEW.encode(), OLD.encode()), private=True)


class Site:
    """A receiver's web server: it answers with the statuses it is told, then with 204."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.signatures: list[str | None] = []
        self.statuses: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.signatures.append(request.headers.get("Kept-Signature"))
        status = self.statuses.pop(0) if self.statuses else 204
        await self.gate.wait()
        return web.Response(status=status, headers={"Location": self.url})


@asynccontextmanager
async def receiving() -> AsyncIterator[Site]:
    site = Site()
    application = web.Application()
    application.router.add_post("/hook", site.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.port = runner.addresses[0][1]
    try:
        yield site
    finally:
        site.gate.set()
        await runner.cleanup()


@asynccontextmanager
async def pushing(options: WebhookOptions, **more: Any) -> AsyncIterator[HttpPushTransport]:
    transport = HttpPushTransport(SystemRuntime(), options, **more)
    try:
        yield transport
    finally:
        await transport.close()


async def settled(engine: Engine, id: str, url: str) -> None:
    """A promise with a listener, settled."""
    tags = {tag.EXTERNAL: "true"}
    await ok(engine, r.PromiseCreate(id, NEVER_MS, tags=tags), PromiseResult)
    await ok(engine, r.PromiseRegisterListener(id, url), PromiseResult)
    settle = r.PromiseSettle(id, PromiseState.RESOLVED, Value(data="done"))
    await ok(engine, settle, PromiseResult)


async def tries(engine: Engine, id: str) -> list[DeliveryRecord]:
    return (await ok(engine, PromiseDeliveries(id), DeliveriesResult)).deliveries


async def tried(engine: Engine, id: str, count: int) -> list[DeliveryRecord]:
    """The tries once there are so many."""
    async with asyncio.timeout(10):
        while len(found := await tries(engine, id)) < count:  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0)
    return found


async def test_a_webhook_is_signed_and_tells_of_the_settled_promise() -> None:
    """Whoever knows the new secret, or still the old one, can be sure of it; nobody else."""
    runtime = SystemRuntime()
    async with receiving() as site:
        push = HttpPushTransport(runtime, SIGNED)
        async with running(WatchedStore(), transports=[push]) as engine:
            await settled(engine, "p", site.url)
            await eventually(lambda: bool(site.bodies))
            (body,), (signature,) = site.bodies, site.signatures
            for secret in (NEW, OLD, [OLD, "x" * 32]):
                promise = kept.verify_webhook(body, signature, secret)
                assert (promise.id, promise.state) == ("p", PromiseState.RESOLVED)
                assert promise.value == Value(data="done")
            with pytest.raises(kept.WebhookSignatureError, match="any of these secrets"):
                kept.verify_webhook(body, signature, "x" * 32)
            with pytest.raises(kept.WebhookSignatureError, match="any of these secrets"):
                kept.verify_webhook(body.replace(b"done", b"fake"), signature, NEW)


async def test_without_a_secret_there_is_no_signature() -> None:
    """A receiver that asks for one refuses such a request."""
    async with receiving() as site, pushing(WebhookOptions(private=True)) as transport:
        await transport.deliver(site.url, b"{}")
        assert site.signatures == [None]
        with pytest.raises(kept.WebhookSignatureError, match="no header"):
            kept.verify_webhook(site.bodies[0], site.signatures[0], NEW)


async def test_failures_are_tried_again_and_can_be_read() -> None:
    """Two errors and a redirect, then success: each try is told, with its error and the next one."""
    runtime = ShiftedRuntime()
    async with receiving() as site:
        site.statuses = [500, 307, 404]
        push = HttpPushTransport(runtime, SIGNED)
        store = WatchedStore(runtime)
        async with running(store, transports=[push], runtime=runtime, repair_ms=10) as engine:
            await settled(engine, "p", f"{site.url}?token=secret")
            for number in (1, 2, 3):
                await tried(engine, "p", number)
                runtime.shift_ms += 10_000
            found = await tried(engine, "p", 4)
            assert not store.tables["default"].outbox
            assert [each.number for each in found] == [1, 2, 3, 4]
            errors = [each.error for each in found]
            assert errors == [f"{site.url} answered {code}" for code in (500, 307, 404)] + [None]
            assert all(each.address == site.url for each in found)
            assert [each.next_at is not None for each in found] == [True, True, True, False]
            assert len(site.bodies) == 4
            # Each try is signed anew, so that the last one is not too old.
            assert len(set(site.signatures)) == 4


async def test_another_process_goes_on_with_what_one_could_not_deliver() -> None:
    """The webhook is in the store until it arrived."""
    runtime = ShiftedRuntime()
    store = WatchedStore(runtime)
    async with receiving() as site:
        site.statuses = [503]
        first = HttpPushTransport(runtime, SIGNED)
        async with running(store, transports=[first], runtime=runtime, repair_ms=10) as engine:
            await settled(engine, "p", site.url)
            await tried(engine, "p", 1)
        runtime.shift_ms += 10_000
        second = HttpPushTransport(runtime, SIGNED)
        async with running(
            store, transports=[second], runtime=runtime, repair_ms=10, watched=False
        ) as engine:
            await eventually(lambda: len(site.bodies) == 2)
            found = await tried(engine, "p", 2)
            assert [each.error is None for each in found] == [False, True]


async def test_a_receiver_that_does_not_answer() -> None:
    """The try ends with the timeout and says so."""
    runtime = SystemRuntime()
    async with receiving() as site:
        site.gate.clear()
        push = HttpPushTransport(runtime, SIGNED, timeout_seconds=0.2)
        async with running(WatchedStore(), transports=[push]) as engine:
            await settled(engine, "p", site.url)
            (only,) = await tried(engine, "p", 1)
            assert only.error is not None
            assert "did not answer in time" in only.error
            assert only.took >= 200


async def test_private_addresses_are_refused_under_every_name() -> None:
    """As a number, as a name, in IPv6, in disguise: nothing arrives, and the try says why."""
    async with receiving() as site, pushing(WebhookOptions()) as transport:
        for host in (
            "127.0.0.1",
            "localhost",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
        ):
            with pytest.raises(DeliveryFailedError):
                await transport.deliver(f"http://{host}:{site.port}/hook", b"{}")
        with pytest.raises(DeliveryFailedError, match="private address"):
            await transport.deliver(site.url, b"{}")
        assert not site.bodies


async def test_what_a_name_is_resolved_to_is_what_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is public when it is looked up first, and private when it is looked up again, gains
    nothing: the address that is connected to is the one that is looked at."""
    answers = ["203.0.113.1", "127.0.0.1", "127.0.0.1"]
    asked: list[str] = []

    def resolve(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async with receiving() as site, pushing(WebhookOptions(), timeout_seconds=0.3) as transport:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        for _ in range(2):
            with pytest.raises(DeliveryFailedError):
                await transport.deliver(f"http://rebind.test:{site.port}/hook", b"{}")
        assert not site.bodies


async def test_an_allowed_network_and_workers() -> None:
    """A network that is named is reached; work is pushed to this machine unless that is refused."""
    allowed = WebhookOptions(networks=networks_of("127.0.0.0/8"))
    async with receiving() as site:
        async with pushing(allowed) as transport:
            await transport.deliver(site.url, b"{}")
        async with pushing(WebhookOptions()) as transport:
            await transport.deliver(site.url, b"{}", kind=MessageKind.EXECUTE)
            with pytest.raises(DeliveryFailedError, match="private address"):
                await transport.deliver(site.url, b"{}", kind=MessageKind.UNBLOCK)
        async with pushing(WebhookOptions(private_workers=False)) as transport:
            with pytest.raises(DeliveryFailedError, match="private address"):
                await transport.deliver(site.url, b"{}", kind=MessageKind.EXECUTE)
        assert len(site.bodies) == 2


async def test_a_redirect_to_elsewhere_is_not_followed() -> None:
    """It is a failure, and its target never hears of it."""
    async with receiving() as site, pushing(SIGNED) as transport:
        site.statuses = [302]
        with pytest.raises(DeliveryFailedError, match="302"):
            await transport.deliver(site.url, b"{}")
        assert len(site.bodies) == 1


async def test_slow_webhooks_do_not_hold_up_workers() -> None:
    """Each kind of message has its own bound."""
    async with receiving() as site, pushing(SIGNED, in_flight=1) as transport:
        site.gate.clear()
        slow = asyncio.create_task(transport.deliver(site.url, b"1"))
        await eventually(lambda: site.bodies == [b"1"])
        work = asyncio.create_task(transport.deliver(site.url, b"2", kind=MessageKind.EXECUTE))
        await eventually(lambda: len(site.bodies) == 2)
        site.gate.set()
        await asyncio.gather(slow, work)


async def test_work_that_is_pushed_has_no_log() -> None:
    """Only webhooks are remembered."""
    async with receiving() as site:
        push = HttpPushTransport(SystemRuntime(), SIGNED)
        store = WatchedStore()
        async with running(store, transports=[push]) as engine:
            tags = {tag.TARGET: site.url}
            await ok(engine, r.PromiseCreate("t", NEVER_MS, tags=tags), PromiseResult)
            await eventually(lambda: bool(site.bodies) and not store.tables["default"].outbox)
            assert json.loads(site.bodies[0])["kind"] == "execute"
            assert await tries(engine, "t") == []
            assert (await engine.submit(PromiseDeliveries("none"))).status == 404
            with pytest.raises(kept.WebhookSignatureError, match="not a webhook"):
                kept.verify_webhook(site.bodies[0], site.signatures[0], NEW)
