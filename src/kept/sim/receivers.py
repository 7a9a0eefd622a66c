"""Workers that are sent their work, over a stream of events or by HTTP push (protocol A6).

They speak the plain base protocol, as installed foreign clients do: acquire what an execute names,
create and settle children under the fence, suspend on what is not done, and start again from the
preload whenever they are resumed.
"""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.responses import (
    OK,
    RESUME_AT_ONCE,
    AcquiredTask,
    FenceResult,
    PreloadResult,
    PromiseResult,
    Response,
)
from kept.sim import base_protocol as base
from kept.sim.base_protocol import Part, Plan
from kept.sim.deliveries import POLL_GROUP, poll_address, push_address
from kept.sim.ledger import ObservedConnection
from kept.sim.process import Process
from kept.sim.runtime import SimulatedRuntime

if TYPE_CHECKING:
    from kept.sim.world import World

RECONNECT_SECONDS: Final = 1.0
# A stream on which not even a keep-alive comes is given up.
SILENCE_SECONDS: Final = 40.0
HEARTBEATS_PER_TTL: Final = 3
CHILD_LIFETIME_MS: Final = 86_400_000
MAX_PAUSE_SECONDS: Final = 0.3
ANY_ADDRESS: Final = f"poll://any@{POLL_GROUP}"
SILENCE_TICK_SECONDS: Final = 5.0


def addresses_of(machine: str, number: int) -> frozenset[str]:
    """All addresses by which a receiver can be reached. Every second one is pushed to."""
    if number % 2 == 0:
        return frozenset({push_address(machine)})
    preferred = f"{ANY_ADDRESS}/{machine}"
    return frozenset({poll_address(machine), ANY_ADDRESS, preferred})


class LeaseGoneError(Exception):
    """The engine says that somebody else may hold the task: let go."""


class Receiver:
    """One process. `addresses` are those of its machine."""

    def __init__(self, world: World, process: Process, runtime: SimulatedRuntime) -> None:
        self._world = world
        self._process = process
        self._runtime = runtime
        self._random: Random = world.random(f"receiver {process}")
        self._servers = [m.name for m in world.machines.values() if m.role == "server"]
        exchange = world.network.exchange(process, self._servers)
        connection = base.BaseConnection(exchange, world.recording, process)
        recorded = world.recording.connection(connection, process)
        self._connection = ObservedConnection(recorded, world.ledger, process)
        number = int(process.name.rpartition("-")[2])
        self._addresses = addresses_of(process.name, number)
        self._pushed = number % 2 == 0
        self._pid = f"{process.name}-{process.incarnation}"
        self._held: dict[str, int] = {}
        self._ttl_ms = int(world.mix.lease_seconds * 1_000)

    async def run(self) -> None:
        """Listens until it is told to stop; what it holds then is left to expire, as they do."""
        if self._pushed:
            self._world.network.hook(self._process, self._hooked)
        else:
            self._runtime.spawn(self._listen_always(), "listen")
        self._runtime.spawn(self._beat_always(), "heartbeat")
        await self._process.told_to_stop.wait()
        self._world.left(self._process)

    # -- receiving

    def _hooked(self, body: bytes) -> int:
        self._received(json.loads(body))
        return OK

    def _received(self, message: Any) -> None:
        if message["kind"] == "execute":
            task = message["data"]["task"]
            self._world.deliveries.executed(self._addresses, task["id"], task["version"])
            work = self._execute(task["id"], task["version"])
            self._runtime.spawn(work, f"execute-{task['id']}")
        else:
            record = msgspec.convert(message["data"]["promise"], PromiseRecord)
            self._world.deliveries.unblocked(self._addresses, record)

    async def _listen_always(self) -> None:
        while True:
            server = self._random.choice(self._servers)
            path = f"/poll/{POLL_GROUP}/{self._process.name}"
            stream = self._world.network.open_stream(self._process, server, path)
            heard = [self._runtime.monotonic()]
            watcher = self._runtime.spawn(self._watch(stream, heard), "silence")
            try:
                buffer = b""
                while (piece := await stream.read()) is not None:
                    heard[0] = self._runtime.monotonic()
                    buffer += piece
                    *frames, buffer = buffer.split(b"\n\n")
                    for frame in frames:
                        if frame.startswith(b"data: "):
                            self._received(json.loads(frame.removeprefix(b"data: ")))
            finally:
                watcher.cancel()
                self._world.network.close_stream(stream)
            await self._runtime.sleep(RECONNECT_SECONDS)

    async def _watch(self, stream: Any, heard: list[float]) -> None:
        while self._runtime.monotonic() - heard[0] < SILENCE_SECONDS:
            await self._runtime.sleep(SILENCE_TICK_SECONDS)
        stream.end()

    # -- working

    async def _beat_always(self) -> None:
        while True:
            await self._runtime.sleep(self._ttl_ms / 1_000 / HEARTBEATS_PER_TTL)
            refs = [r.TaskRef(id, version) for id, version in self._held.items()]
            if refs:
                try:
                    await self._connection.send(r.TaskHeartbeat(self._pid, refs))
                except ConnectionFailedError:
                    continue

    async def _execute(self, id: str, version: int) -> None:
        acquire = r.TaskAcquire(id, version, self._pid, self._ttl_ms)
        expected = self._world.deliveries.children_of(id)
        try:
            response = await self._connection.send(acquire)
            if not isinstance(response.data, AcquiredTask):
                return
            acquired = response.data
            self._world.deliveries.preloaded(id, expected, acquired.preload)
            self._held[id] = acquired.task.version
            await self._run(acquired)
        except (ConnectionFailedError, LeaseGoneError):
            pass
        finally:
            self._held.pop(id, None)

    async def _run(self, acquired: AcquiredTask) -> None:
        promise, version = acquired.promise, acquired.task.version
        plan = base.plan_of(promise)
        if plan is None:
            await self._settle_own(promise, version, base.encode("nothing to do"))
            return
        known = {record.id: record for record in acquired.preload}
        while True:
            total, waiting = await self._pass(promise, version, plan, known)
            if not waiting:
                await self._settle_own(promise, version, base.encode(total))
                return
            actions = [
                r.CallbackAction(r.PromiseRegisterCallback(child, promise.id)) for child in waiting
            ]
            response = await self._send(r.TaskSuspend(promise.id, version, actions))
            if response.status != RESUME_AT_ONCE:
                return
            assert isinstance(response.data, PreloadResult)
            known.update({record.id: record for record in response.data.preload})

    async def _pass(
        self, promise: PromiseRecord, version: int, plan: Plan, known: dict[str, PromiseRecord]
    ) -> tuple[int, list[str]]:
        """Goes through the program as far as it can: what it came to, and what it waits for."""
        total, waiting = 0, list[str]()
        for number, part in enumerate(plan.parts, 1):
            if part.kind == "join":
                if waiting:
                    break
                continue
            id = f"{promise.id}{plan.dialect}{number}"
            record = known.get(id)
            if record is None or record.state is PromiseState.PENDING:
                record = await self._child(promise, version, plan, part, id, record)
                known[id] = record
            if record.state is PromiseState.PENDING:
                waiting.append(id)
            else:
                total += _worth(part, record)
        return total, waiting

    async def _child(
        self,
        promise: PromiseRecord,
        version: int,
        plan: Plan,
        part: Part,
        id: str,
        record: PromiseRecord | None,
    ) -> PromiseRecord:
        if record is None:
            create = self._create(promise, plan, part, id)
            record = await self._fenced(promise.id, version, r.CreateAction(create))
        if part.kind != "local" or record.state is not PromiseState.PENDING:
            return record
        await self._runtime.sleep(self._random.uniform(0, MAX_PAUSE_SECONDS))
        self._world.boundary.apply(id, id)
        settle = r.PromiseSettle(id, PromiseState.RESOLVED, base.encode(1))
        return await self._fenced(promise.id, version, r.SettleAction(settle))

    def _create(self, promise: PromiseRecord, plan: Plan, part: Part, id: str) -> r.PromiseCreate:
        tags, param = base.lineage(promise, plan.dialect), Value()
        deadline = self._runtime.now_ms() + CHILD_LIFETIME_MS
        if part.kind == "timer":
            deadline = self._runtime.now_ms() + part.milliseconds
            tags[tag.TIMER] = "true"
            if part.targeted:
                tags[tag.TARGET] = plan.target
        elif part.kind == "job":
            tags |= {tag.TARGET: "queue://default", tag.FUNCTION: "job@1"}
            param = base.encode({"func": "job", "args": [], "kwargs": {}, "version": 1})
        elif part.plan is not None:
            tags[tag.TARGET] = part.plan.target
            param = base.call_param(part.plan)
        return r.PromiseCreate(id, deadline, param, tags)

    async def _fenced(
        self, id: str, version: int, action: r.CreateAction | r.SettleAction
    ) -> PromiseRecord:
        response = await self._send(r.TaskFence(id, version, action))
        assert isinstance(response.data, FenceResult)
        inner = response.data.action.data
        assert isinstance(inner, PromiseResult), inner
        self._world.deliveries.child(id, inner.promise.id)
        return inner.promise

    async def _settle_own(self, promise: PromiseRecord, version: int, value: Value) -> None:
        settle = r.SettleAction(r.PromiseSettle(promise.id, PromiseState.RESOLVED, value))
        await self._send(r.TaskFulfill(promise.id, version, settle))

    async def _send(self, request: r.Request) -> Response:
        response = await self._connection.send(request)
        if not response.ok:
            raise LeaseGoneError(str(response.data))
        return response


def _worth(part: Part, record: PromiseRecord) -> int:
    assert record.state is PromiseState.RESOLVED, record
    return int(base.decode(record.value)) if part.kind == "call" else 1
