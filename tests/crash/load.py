"""Clients that create, settle, claim and fulfil, and remember every answer that they got."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

from kept.client.http import HttpConnection
from kept.client.retry import RetryPolicy
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.responses import ClaimResult, PromiseResult, Response
from kept.runtime import SystemRuntime

QUEUE = "work"
# Long beside a restart of the server, short beside the whole test: a claim whose answer was lost
# for good comes back.
TTL_MS = 5_000
PATIENT = RetryPolicy(attempts=400, base_seconds=0.02, longest_seconds=0.1)


class Ledger:
    """What was acknowledged: the truth that the store is held against afterwards."""

    def __init__(self) -> None:
        self.created: dict[str, PromiseRecord] = {}
        # Every answer to a settle, of whichever client: all of one id must be the same.
        self.settled: defaultdict[str, list[PromiseRecord]] = defaultdict(list)
        # (version, the record answered) of each acknowledged fulfil.
        self.fulfilled: defaultdict[str, list[tuple[int, PromiseRecord]]] = defaultdict(list)
        # (version, client) of each lease that somebody was told of.
        self.leases: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        self.acknowledged = 0
        self.answered = asyncio.Event()
        self.unknown = 0


class Client:
    """One client with a connection of its own, doing everything in turn until told to stop."""

    def __init__(self, name: str, url: str, seed: int, ledger: Ledger) -> None:
        self.name = name
        self.random = random.Random(seed)
        self.ledger = ledger
        self.stopping = False
        self._connection = HttpConnection(url, SystemRuntime(), retry=PATIENT)
        self._number = 0

    async def run(self) -> None:
        try:
            while not self.stopping:
                step = self.random.choice(
                    (
                        self._create_job,
                        self._create_job,
                        self._work,
                        self._work,
                        self._settle,
                        self._settle_shared,
                    )
                )
                try:
                    await step()
                except ConnectionFailedError:
                    # Whether it was applied is unknown, so nothing is claimed about it.
                    self.ledger.unknown += 1
        finally:
            await self._connection.close()

    async def _ask(self, request: r.Request) -> Response:
        response = await self._connection.send(request)
        if response.ok:
            self.ledger.acknowledged += 1
            self.ledger.answered.set()
        return response

    async def _create(self, id: str, **tags: str) -> PromiseRecord:
        value = Value(data=f"{id} by {self.name}")
        response = await self._ask(r.PromiseCreate(id, NEVER_MS, value, tags))
        assert isinstance(response.data, PromiseResult), response
        return response.data.promise

    def _new_id(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self.name}-{self._number}"

    async def _create_job(self) -> None:
        id = self._new_id("job")
        self.ledger.created[id] = await self._create(id, **{"resonate:target": f"queue://{QUEUE}"})

    async def _settle(self) -> None:
        id = self._new_id("promise")
        self.ledger.created[id] = await self._create(id)
        await self._settle_with_own_value(id)

    async def _settle_shared(self) -> None:
        """Others settle it too, each with a value of its own: one of them wins."""
        id = f"shared-{self._number // 4}"
        self._number += 1
        await self._create(id)
        await self._settle_with_own_value(id)

    async def _settle_with_own_value(self, id: str) -> None:
        state = self.random.choice((PromiseState.RESOLVED, PromiseState.REJECTED))
        value = Value(data=f"{self.name} {self.random.random()}")
        response = await self._ask(r.PromiseSettle(id, state, value))
        assert isinstance(response.data, PromiseResult), response
        self.ledger.settled[id].append(response.data.promise)

    async def _work(self) -> None:
        limit = self.random.randint(1, 4)
        claim = r.TaskClaim([QUEUE], self.name, TTL_MS, limit, preload=0)
        response = await self._ask(claim)
        assert isinstance(response.data, ClaimResult), response
        leases = [(lease.task.id, lease.task.version) for lease in response.data.tasks]
        for id, version in leases:
            self.ledger.leases[id].append((version, self.name))
        await asyncio.gather(*(self._fulfil(id, version) for id, version in leases))

    async def _fulfil(self, id: str, version: int) -> None:
        value = Value(data=f"{self.name} at {version}: {self.random.random()}")
        settle = r.PromiseSettle(id, PromiseState.RESOLVED, value)
        response = await self._ask(r.TaskFulfill(id, version, r.SettleAction(settle)))
        if response.ok:
            assert isinstance(response.data, PromiseResult), response
            self.ledger.fulfilled[id].append((version, response.data.promise))
            assert response.data.promise.value == value
        else:
            # The lease expired while the server was down, and another client has it.
            assert response.status == 409, response
