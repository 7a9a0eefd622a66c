"""Sends the events into the server, as fast as it takes them and no faster."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.storm.events import Event
from benchmarks.storm.program import app, handle
from kept.client.connect import connect
from kept.client.connection import Connection
from kept.client.retry import NO_RETRY
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.responses import SHED, PromiseResult
from kept.runtime import SystemRuntime
from kept.sdk import payload
from kept.sdk.services import Services

IN_FLIGHT = 256
# After the first refusal, twice as long after each further one: who asks all the time takes from the
# server the time that would empty the queue.
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.8


@dataclass
class Sent:
    """What became of the copies so far."""

    copies: int = 0
    repeated: int = 0
    shed: int = 0


async def send(url: str, arrivals: Iterator[Event], sent: Sent) -> None:
    """All copies, each until it was accepted; the id of an event is the id of its work."""
    runtime = SystemRuntime()
    connection = await connect(url, runtime, retry=NO_RETRY)
    tags = Services(connection, runtime, app._registry, app.queue).target_of(handle).all_tags
    try:
        await asyncio.gather(*(_sender(connection, tags, arrivals, sent) for _ in range(IN_FLIGHT)))
    finally:
        await connection.close()


async def _sender(
    connection: Connection, tags: dict[str, str], arrivals: Iterator[Event], sent: Sent
) -> None:
    for event in arrivals:
        pause = FIRST_PAUSE_SECONDS
        while not await _is_accepted(connection, tags, event, sent):
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        sent.copies += 1


async def _is_accepted(
    connection: Connection, tags: dict[str, str], event: Event, sent: Sent
) -> bool:
    now = int(time.time() * 1_000)
    failures = None if event.hopeless else event.failures
    arguments = (event.number, event.entity, event.revision, failures, now)
    param = payload.encode_arguments(arguments, {}, Services.root_headers)
    try:
        response = await connection.send(r.PromiseCreate(event.id, NEVER_MS, param, tags))
    except ConnectionFailedError:
        return False
    if response.status == SHED:
        sent.shed += 1
        return False
    assert isinstance(response.data, PromiseResult), response.data
    sent.repeated += response.data.promise.param != param
    return True
