"""Clients that create, settle, claim and fulfil, and remember every answer that they got."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections import defaultdict
from typing import Final

import msgspec

from kept.check.history import Recorder
from kept.client.exchange import NotSentError
from kept.client.http import HttpConnection
from kept.client.retry import NO_RETRY, REFUSED_FOR_NOW, REPEATABLE, REPEATABLE_WITH_REQUEST_ID
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.responses import UNAVAILABLE, ClaimResult, PromiseResult, Response
from kept.runtime import SystemRuntime
from tests.crash.receiver import Receiver

RUNTIME: Final = SystemRuntime()
# Long beside a restart of the server, short beside the whole test: a claim whose answer was lost
# for good comes back.
TTL_MS: Final = 5_000
# Over before its holder comes back to it, now and then.
SHORT_TTL_MS: Final = 60
# As long as a server takes to start, many times over.
MAX_REPEATS: Final = 2_000
PAUSE_S: Final = 0.02
# After so many answers all clients go on with other ids and another queue. What is asked about one id
# stays short then, and the checker fast.
ANSWERS_PER_COHORT: Final = 60


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
        # Promises whose settlement somebody was promised to be told of.
        self.listened: set[str] = set()
        self.acknowledged = 0
        self.answered = asyncio.Event()
        self.unknown = 0

    @property
    def cohort(self) -> int:
        """The number of the ids that are used now."""
        return self.acknowledged // ANSWERS_PER_COHORT


class RepeatingConnection:
    """What `HttpConnection` repeats, repeated here, so that each try is an operation of the history:
    a try whose answer was lost, and the next one, are two, and between them others may act."""

    def __init__(self, url: str, recorder: Recorder, client: str, ledger: Ledger) -> None:
        self._connection = HttpConnection(url, RUNTIME, retry=NO_RETRY)
        self._recorder = recorder
        self._client = client
        self._ledger = ledger

    async def send(self, request: r.Request) -> Response:
        """The answer. Raises `ConnectionFailedError` where what may not be repeated got none."""
        kind, id = request.kind, None
        if kind in REPEATABLE_WITH_REQUEST_ID:
            id = str(uuid.UUID(bytes=RUNTIME.entropy(16), version=4))
        for tries in itertools.count(1):
            try:
                response = await self._try(request, id)
                if response.status not in REFUSED_FOR_NOW or tries >= MAX_REPEATS:
                    return response
            except ConnectionFailedError as error:
                never_sent = isinstance(error.__cause__, NotSentError)
                if tries >= MAX_REPEATS or not (never_sent or kind in REPEATABLE):
                    raise
            await RUNTIME.sleep(PAUSE_S)
        raise AssertionError

    async def _try(self, request: r.Request, id: str | None) -> Response:
        head = {} if id is None else {"kept:request": id}
        asked = {"kind": request.kind, "head": head, "data": msgspec.to_builtins(request)}
        number = self._recorder.invoke(self._client, asked)
        try:
            response = await self._connection.send(request, request_id=id)
        except ConnectionFailedError as error:
            if isinstance(error.__cause__, NotSentError):
                # No server was there, so it is as if one had said no.
                self._recorder.answered(number, UNAVAILABLE, None)
            else:
                self._ledger.unknown += 1
                self._recorder.given_up(number)
            raise
        self._recorder.answered(number, response.status, msgspec.to_builtins(response.data))
        return response

    async def close(self) -> None:
        await self._connection.close()


class Client:
    """One client with a connection of its own, doing everything in turn until told to stop."""

    def __init__(
        self, name: str, url: str, seed: int, ledger: Ledger, recorder: Recorder, receiver: Receiver
    ) -> None:
        self.name = name
        self.random = random.Random(seed)
        self.ledger = ledger
        self.stopping = False
        self._receiver = receiver
        self._connection = RepeatingConnection(url, recorder, name, ledger)
        self._number = 0
        # Leases that it may have lost by now.
        self._slow: list[tuple[str, int]] = []

    async def run(self) -> None:
        steps = (
            *(self._create_job, self._create_job, self._work, self._work_slowly),
            *(self._settle, self._settle_shared, self._listen, self._look, self._end_slow_work),
        )
        try:
            while not self.stopping:
                try:
                    await self.random.choice(steps)()
                except ConnectionFailedError:
                    # Whether it was applied is unknown, so nothing is claimed about it.
                    continue
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

    @property
    def _queue(self) -> str:
        return f"work-{self.ledger.cohort}"

    async def _create_job(self) -> None:
        id = self._new_id("job")
        tags = {"resonate:target": f"queue://{self._queue}"}
        self.ledger.created[id] = await self._create(id, **tags)

    async def _settle(self) -> None:
        id = self._new_id("promise")
        self.ledger.created[id] = await self._create(id)
        await self._settle_with_own_value(id)

    async def _settle_shared(self) -> None:
        """Others settle it too, each with a value of its own: one of them wins."""
        id = f"shared-{self.ledger.cohort}-{self.random.randint(1, 3)}"
        await self._create(id)
        await self._settle_with_own_value(id)

    async def _listen(self) -> None:
        """Whoever asked to be told of a settlement is told, at least once."""
        id = self._new_id("heard")
        self.ledger.created[id] = await self._create(id, **{"resonate:external": "true"})
        response = await self._ask(r.PromiseRegisterListener(id, self._receiver.url))
        assert isinstance(response.data, PromiseResult), response
        self.ledger.listened.add(id)
        await self._settle_with_own_value(id)

    async def _settle_with_own_value(self, id: str) -> None:
        state = self.random.choice((PromiseState.RESOLVED, PromiseState.REJECTED))
        value = Value(data=f"{self.name} {self.random.random()}")
        response = await self._ask(r.PromiseSettle(id, state, value))
        assert isinstance(response.data, PromiseResult), response
        self.ledger.settled[id].append(response.data.promise)

    async def _look(self) -> None:
        """Nobody sees a state that is taken back later."""
        id = f"shared-{self.ledger.cohort}-{self.random.randint(1, 3)}"
        await self._ask(r.PromiseGet(id))

    async def _work(self) -> None:
        leases = await self._claim(TTL_MS, self.random.randint(1, 4))
        await asyncio.gather(*(self._fulfil(id, version) for id, version in leases))

    async def _work_slowly(self) -> None:
        """Holds a lease for longer than it lasts, perhaps."""
        self._slow += await self._claim(SHORT_TTL_MS, 1)

    async def _end_slow_work(self) -> None:
        if not self._slow:
            return
        id, version = self._slow.pop(0)
        how = self.random.randrange(4)
        if how < 2:
            # It goes on as if it had forgotten that: what it does later must not count.
            await self._ask(r.TaskRelease(id, version))
        elif how == 2:
            await self._ask(r.TaskHeartbeat(self.name, [r.TaskRef(id, version)]))
        else:
            await self._fulfil(id, version)
            return
        self._slow.append((id, version))

    async def _claim(self, ttl_ms: int, limit: int) -> list[tuple[str, int]]:
        """Leases on jobs of these days, or of those before, whose leases are over."""
        cohort = max(0, self.ledger.cohort - self.random.choice((0, 0, 0, 1, 2)))
        claim = r.TaskClaim([f"work-{cohort}"], self.name, ttl_ms, limit, preload=0)
        response = await self._ask(claim)
        assert isinstance(response.data, ClaimResult), response
        leases = [(lease.task.id, lease.task.version) for lease in response.data.tasks]
        for id, version in leases:
            self.ledger.leases[id].append((version, self.name))
        return leases

    async def _fulfil(self, id: str, version: int) -> None:
        value = Value(data=f"{self.name} at {version}: {self.random.random()}")
        settle = r.PromiseSettle(id, PromiseState.RESOLVED, value)
        response = await self._ask(r.TaskFulfill(id, version, r.SettleAction(settle)))
        if response.ok:
            assert isinstance(response.data, PromiseResult), response
            self.ledger.fulfilled[id].append((version, response.data.promise))
            assert response.data.promise.value == value
        else:
            # The lease expired, and another client has it.
            assert response.status == 409, response
