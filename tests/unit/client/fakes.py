"""What the client's tests stand on: a server as a function, a runtime whose sleeps cost nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from kept.client.exchange import Answer
from kept.runtime import SystemRuntime

Envelope = dict[str, Any]
PROMISE: Envelope = {
    "id": "p",
    "state": "pending",
    "param": {},
    "value": {},
    "tags": {},
    "timeoutAt": 10,
    "createdAt": 1,
}


class InstantRuntime(SystemRuntime):
    """Sleeps end at once, are written down, and move the clock that `monotonic` shows."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def reply(envelope: Envelope, status: int = 200, data: object = None) -> Envelope:
    """The answer to one envelope; by default a pending promise."""
    head = {"corrId": envelope["head"]["corrId"], "status": status, "version": "2026-04-01"}
    return {
        "kind": envelope["kind"],
        "head": head,
        "data": {"promise": PROMISE} if data is None else data,
    }


def encoded(content: object, status: int = 200, retry_after: float | None = None) -> Answer:
    return Answer(status, json.dumps(content).encode(), retry_after)


class ScriptedExchange:
    """Plays a server: `on_batch` and `on_single` turn envelopes into an answer or raise. While
    `gate` is not set, no answer comes."""

    def __init__(self) -> None:
        self.batches: list[list[Envelope]] = []
        self.singles: list[Envelope] = []
        self.timeouts: list[float] = []
        self.bodies: list[int] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.closed = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_batch: Callable[[list[Envelope]], Answer] = lambda batch: encoded(
            [reply(envelope) for envelope in batch]
        )
        self.on_single: Callable[[Envelope], Answer] = lambda envelope: encoded(reply(envelope))

    async def post(self, path: str, body: bytes, timeout: float) -> Answer:
        self.timeouts.append(timeout)
        self.bodies.append(len(body))
        content = json.loads(body)
        (self.batches if path == "/batch" else self.singles).append(content)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            return self.on_batch(content) if path == "/batch" else self.on_single(content)
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        self.closed = True


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Returns once `condition` holds; fails at the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)
