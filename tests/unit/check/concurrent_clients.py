"""Concurrent clients on a real engine in this process, recorded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Any

from kept.check.history import Header, History, Recorder, RecordingConnection
from kept.client.connection import Connection
from kept.client.local import LocalConnection
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.records import PromiseState, TaskState, Value
from kept.protocol.responses import AcquiredTask, ClaimResult, Response, TaskResult
from kept.runtime import SystemRuntime
from kept.stores.memory import MemoryStore

FAR_MS = 3_600_000
SOON_MS = 30
REQUESTS_PER_ID = 12
MAX_TURNS = 12


@dataclass(frozen=True)
class Plan:
    """How many clients ask how much about how many ids at a time. `shared` ids make them meet;
    `base_only` leaves extensions and near deadlines out."""

    seed: int
    clients: int = 5
    requests: int = 100
    ids: int = 3
    shared: bool = True
    base_only: bool = False


class Client:
    """One client that asks for one thing after another, mostly sensible things."""

    def __init__(self, name: str, connection: RecordingConnection, plan: Plan, prefix: str) -> None:
        self._name = name
        self._connection = connection
        self._random = Random(f"{plan.seed} {name}")
        self._plan = plan
        self._prefix = prefix
        self._ids: list[str] = []
        self._leases: dict[str, int] = {}
        self._now_ms = SystemRuntime().now_ms()

    async def run(self, requests: int) -> None:
        """Asks, remembering the leases that it got."""
        for number in range(requests):
            # The ids in use move on, as promises that are settled are dull.
            first = number // REQUESTS_PER_ID
            self._ids = [f"{self._prefix}p{first + each}" for each in range(self._plan.ids)]
            response = await self._connection.send(self._request(number))
            self._remember(response.data)

    def _remember(self, data: Any) -> None:
        if isinstance(data, AcquiredTask) and data.task.state is TaskState.ACQUIRED:
            self._leases[data.task.id] = data.task.version
        elif isinstance(data, ClaimResult):
            for lease in data.tasks:
                self._leases[lease.task.id] = lease.task.version
        elif isinstance(data, TaskResult) and data.task.state is not TaskState.ACQUIRED:
            self._leases.pop(data.task.id, None)

    def _request(self, number: int) -> r.Request:
        random = self._random
        id = random.choice(self._ids)
        other = random.choice(self._ids)
        holder = {"pid": self._name, "ttl": 60_000}
        value = Value(data=f"{self._name}.{number}")
        version = self._leases.get(id, random.randrange(3))
        lease = {"id": id, "version": version}
        settle = r.PromiseSettle(id, PromiseState.RESOLVED, value)
        child = f"{id}.{random.randrange(3)}"
        step = r.PromiseCreate(child, self._now_ms + FAR_MS, tags={"resonate:parent": id})
        edge = r.CallbackAction(r.PromiseRegisterCallback(other, id))
        choices: list[tuple[float, r.Request]] = [
            (6, self._create(id)),
            (4, r.PromiseGet(id)),
            (3, r.TaskGet(id)),
            (0.7, settle),
            (2, r.TaskCreate(action=r.CreateAction(self._create(id)), **holder)),
            (3, r.TaskAcquire(**lease, **holder)),
            (2, r.TaskClaim(queues=["jobs"], limit=2, **holder)),
            (1, r.TaskRelease(**lease)),
            (0.7, r.TaskFulfill(**lease, action=r.SettleAction(settle))),
            (2, r.TaskSuspend(**lease, actions=[edge])),
            (2, r.TaskFence(**lease, action=r.CreateAction(step))),
            (1, r.TaskRecordStep(**lease, step=step, state=PromiseState.RESOLVED, value=value)),
            (1, r.TaskHeartbeat(self._name, [r.TaskRef(id, version) for id in self._ids])),
            (0.3, r.TaskHalt(id)),
            (0.5, r.TaskContinue(id)),
            (0.5, r.PromiseRegisterCallback(other, id)),
        ]
        if self._plan.base_only:
            beyond = (r.TaskClaim, r.TaskRecordStep)
            choices = [each for each in choices if not isinstance(each[1], beyond)]
        return random.choices([each for _, each in choices], [weight for weight, _ in choices])[0]

    def _create(self, id: str) -> r.PromiseCreate:
        near = FAR_MS if self._plan.base_only else SOON_MS
        deadline = self._now_ms + self._random.choice((FAR_MS, FAR_MS, FAR_MS, near))
        target = self._random.choice(("queue://jobs", "poll://any@workers"))
        return r.PromiseCreate(id, deadline, tags={"resonate:target": target})


class SlowConnection:
    """A connection on which requests and answers take some turns of the loop."""

    def __init__(self, connection: Connection, random: Random) -> None:
        self._connection = connection
        self._random = random

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        await self._pause()
        response = await self._connection.send(request, request_id=request_id)
        await self._pause()
        return response

    async def close(self) -> None:
        """Nothing of its own to end."""

    async def _pause(self) -> None:
        for _ in range(self._random.randrange(MAX_TURNS)):
            await asyncio.sleep(0)


async def recorded(plan: Plan) -> History:
    """What the clients asked and were answered."""
    runtime = SystemRuntime()
    engine = Engine(MemoryStore(runtime), runtime)
    recorder = Recorder(runtime.now_ms, Header(title="recorded", clock_skew_ms=0))
    await engine.start()
    try:
        local = LocalConnection(engine, runtime)
        running = []
        for number in range(plan.clients):
            name = f"c{number}"
            slow = SlowConnection(local, Random(f"{plan.seed} {name} pauses"))
            recording = RecordingConnection(slow, recorder, name, "server")
            prefix = "" if plan.shared else f"{name}."
            running.append(Client(name, recording, plan, prefix).run(plan.requests))
        await asyncio.gather(*running)
    finally:
        await engine.stop()
    return recorder.history()
