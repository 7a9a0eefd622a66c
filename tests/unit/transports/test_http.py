"""Pushing by POST: what counts as delivered, and what must not leak (protocol A6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from kept.runtime import SystemRuntime
from kept.transports.base import DeliveryFailedError
from kept.transports.http import MAX_PUSHES_IN_FLIGHT_PER_HOST, HttpPushTransport
from kept.transports.webhooks import WebhookOptions
from tests.unit.server.support import eventually


class Receiver:
    """A worker's web server."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.inside = self.most_inside = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        return web.Response(status=self.status, headers=self.headers)

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await self.gate.wait()
        return response


@asynccontextmanager
async def receiving(
    timeout_seconds: float = 5.0, options: WebhookOptions | None = None
) -> AsyncIterator[tuple[Receiver, HttpPushTransport]]:
    """A web server and a transport."""
    options = options or WebhookOptions(private=True)
    receiver = Receiver()
    transport = HttpPushTransport(SystemRuntime(), options, timeout_seconds=timeout_seconds)
    application = web.Application()
    application.router.add_post("/inbox", receiver.handle)
    application.router.add_post("/endless", receiver.endless)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"http://127.0.0.1:{port}/inbox"
    try:
        yield receiver, transport
    finally:
        receiver.gate.set()
        await transport.close()
        await runner.cleanup()


async def test_any_2xx_is_a_delivery_of_exactly_the_message() -> None:
    """The body is the message, the type JSON, and nothing of this machine is in the headers."""
    async with receiving() as (receiver, transport):
        for receiver.status in (200, 202, 204):
            await transport.deliver(receiver.url, b'{"kind":"execute"}')
        headers, body = receiver.requests[0]
        assert body == b'{"kind":"execute"}'
        assert headers["Content-Type"] == "application/json"
        assert not {"Cookie", "Authorization"} & set(headers)


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 503])
async def test_everything_else_is_a_failure_and_redirects_are_not_followed(status: int) -> None:
    """One request is made, and its failure is told."""
    async with receiving() as (receiver, transport):
        receiver.status, receiver.headers = status, {"Location": receiver.url}
        with pytest.raises(DeliveryFailedError, match=str(status)):
            await transport.deliver(receiver.url, b"{}")
        assert len(receiver.requests) == 1


async def test_a_receiver_that_does_not_answer_is_a_failure() -> None:
    """After the timeout the message goes back to the outbox."""
    async with receiving(timeout_seconds=0.2) as (receiver, transport):
        receiver.gate.clear()
        with pytest.raises(DeliveryFailedError, match="in time"):
            await transport.deliver(receiver.url, b"{}")


async def test_a_body_that_never_ends_does_not_hold_a_delivery() -> None:
    """The status decides; the body is not waited for."""
    async with receiving() as (receiver, transport):
        receiver.gate.clear()
        url = receiver.url.replace("/inbox", "/endless")
        await asyncio.wait_for(transport.deliver(url, b"{}"), 3)


async def test_failures_do_not_show_passwords_or_queries() -> None:
    """An address may carry secrets, and failures are logged."""
    async with receiving() as (receiver, transport):
        secret = receiver.url.replace("//", "//user:hunter2@") + "?key=hunter3"
        receiver.status = 500
        with pytest.raises(DeliveryFailedError) as refused:
            await transport.deliver(secret, b"{}")
        nobody = "http://user:hunter2@127.0.0.1:1/?key=hunter3"
        with pytest.raises(DeliveryFailedError) as unreachable:
            await transport.deliver(nobody, b"{}")
        for failure in (refused, unreachable):
            assert "hunter" not in str(failure.value)


@pytest.mark.parametrize("address", ["http://", "http://[", "http://h:99999999/", "http://\ud800"])
async def test_an_address_that_is_no_url_is_a_failure(address: str) -> None:
    """Whatever passed the check of addresses, a delivery fails in the one way it may."""
    transport = HttpPushTransport(SystemRuntime(), timeout_seconds=1)
    try:
        with pytest.raises(DeliveryFailedError):
            await transport.deliver(address, b"{}")
    finally:
        await transport.close()


async def test_one_receiver_gets_a_bounded_number_at_once() -> None:
    """More deliveries than the bound wait for their turn, and all arrive."""
    async with receiving() as (receiver, transport):
        receiver.gate.clear()
        count = MAX_PUSHES_IN_FLIGHT_PER_HOST * 3
        deliveries = [
            asyncio.create_task(transport.deliver(receiver.url, b"{}")) for _ in range(count)
        ]
        await eventually(lambda: receiver.inside == MAX_PUSHES_IN_FLIGHT_PER_HOST)
        receiver.gate.set()
        await asyncio.gather(*deliveries)
        assert receiver.most_inside == MAX_PUSHES_IN_FLIGHT_PER_HOST
        assert len(receiver.requests) == count
