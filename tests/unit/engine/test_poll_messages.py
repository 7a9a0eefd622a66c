"""Messages for workers that listen on a stream wait for exactly those who may have them."""

from __future__ import annotations

import asyncio
import json

from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.storage import DEFAULT_TENANT
from kept.runtime import SystemRuntime
from kept.transports.poll import PollTransport
from tests.unit.engine.rig import WatchedStore, running, turns
from tests.unit.machine.world import create


async def test_a_message_for_one_worker_waits_untried_until_that_one_is_back() -> None:
    """While the worker is gone and others of its group are here, its message costs no tries, so
    no backoff holds it up when the worker is back."""
    runtime = SystemRuntime()
    store, poll = WatchedStore(runtime), PollTransport(runtime)
    async with running(store, transports=[poll], runtime=runtime, repair_ms=60_000) as engine:
        poll.on_connect = lambda group: engine.receiver_connected()
        poll.connect("g", "other")
        await engine.submit(create("p", external="true"))
        await engine.submit(r.PromiseRegisterListener("p", "poll://uni@g/me"))
        await engine.submit(r.PromiseSettle("p", PromiseState.RESOLVED))
        await turns()
        (entry,) = store.tables[DEFAULT_TENANT].outbox.values()
        assert entry.tries == 0
        mine = poll.connect("g", "me")
        async with asyncio.timeout(5):
            frame = await anext(mine.frames())
        assert json.loads(frame.removeprefix(b"data: "))["kind"] == "unblock"
