"""What runs in a simulated process: a server, a worker, a client. All of it is the real code."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

from kept.client.connection import Connection
from kept.client.local import LocalConnection
from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.errors import (
    ConnectionFailedError,
    KeptError,
    PromiseCanceledError,
    PromiseError,
    StoreError,
)
from kept.protocol import requests as r
from kept.protocol.records import Promise, PromiseState
from kept.protocol.responses import PromiseResult
from kept.runtime import Runtime
from kept.sdk import payload
from kept.sdk.app import App
from kept.sdk.functions import Function
from kept.sdk.handle import Handle
from kept.server.app import Door
from kept.server.auth import AuthOptions, open_authenticator
from kept.server.limits import Admission, Limits
from kept.server.reception import Reception
from kept.sim import guards, programs
from kept.sim.ledger import ObservedConnection
from kept.sim.process import Process
from kept.sim.recording import WireConnection
from kept.sim.requests import RawClient
from kept.sim.runtime import SimulatedRuntime
from kept.transports.poll import PollTransport

if TYPE_CHECKING:
    from kept.sim.world import Goal, World

# A load balancer's address: which server answers is the network's choice.
URL: Final = "http://kept.simulation"
# Seconds between two things that a client does.
CLIENT_PAUSE_SECONDS: Final = 0.4
SHARE_OF_STARTS: Final = 0.2
# Work under one id that several clients may start.
SHARE_OF_RACES: Final = 0.3
MAX_WAITING_HANDLES: Final = 10
# Requests of one client that are under way at one time, besides those that wait for outcomes.
MAX_DOING: Final = 8
START_AGAIN_SECONDS: Final = 0.5
LONGEST_APPROVAL_SECONDS: Final = 6.0
CANCEL_AFTER_SECONDS: Final = 2.0


async def run(world: World, role: str, process: Process, runtime: SimulatedRuntime) -> None:
    """The main program of a process. One that is asked to stop leaves in good order and ends."""
    if role == "server":
        await _serve(world, process, runtime)
    elif role == "worker":
        await _work(world, process, runtime)
    else:
        await _Client(world, process, runtime).run()


# -- server


async def _serve(world: World, process: Process, runtime: Runtime) -> None:
    poll = PollTransport(runtime)
    store = world.disk.store(process, runtime)
    engine = Engine(store, runtime, EngineConfig(), transports=(poll,), observer=store)
    poll.on_connect = lambda group: engine.receiver_connected()
    authenticator = open_authenticator(AuthOptions(), runtime)
    door = Door(
        Reception(engine, authenticator, runtime),
        authenticator,
        poll,
        Admission(Limits()),
        runtime,
        ping=store.ping,
        metrics=_no_metrics,
    )
    while True:
        try:
            await engine.start()
        except StoreError:
            # As its supervisor does with `kept serve`.
            await runtime.sleep(START_AGAIN_SECONDS)
        else:
            break
    world.network.listen(process, door)
    await process.told_to_stop.wait()
    world.network.unlisten(process)
    await poll.close()
    await engine.stop()
    world.left(process)


async def _no_metrics() -> bytes:
    return b""


# -- worker and client


async def _work(world: World, process: Process, runtime: Runtime) -> None:
    app = _app(world, process, runtime, worker=True)
    while True:
        try:
            await app.open()
        except StoreError:
            await runtime.sleep(START_AGAIN_SECONDS)
        else:
            break
    await process.told_to_stop.wait()
    await app.close()
    world.left(process)


class SimulatedApp(App):
    """An `App` whose connection goes over the simulated network, or to an engine of its own."""

    world: World
    process: Process
    embedded: bool
    functions: dict[str, Function[..., Any]]

    async def _connect(self) -> Connection:
        connection = await (self._embedded() if self.embedded else self._remote())
        recorded = self.world.recording.connection(connection, self.process)
        return ObservedConnection(recorded, self.world.ledger, self.process)

    async def _embedded(self) -> Connection:
        store = self.world.disk.store(self.process, self._runtime)
        engine = Engine(store, self._runtime, EngineConfig(), observer=store)
        await engine.start()
        recording, process = self.world.recording, self.process
        process.on_death.append(lambda: recording.died_with_its_engine(process))
        return LocalConnection(engine, self._runtime, owns=True)

    async def _remote(self) -> Connection:
        servers = [m.name for m in self.world.machines.values() if m.role == "server"]
        exchange = self.world.network.exchange(self.process, servers)
        connection = WireConnection(self.url, self._runtime, exchange=exchange)
        connection.recording, connection.process = self.world.recording, self.process
        return connection


def _app(world: World, process: Process, runtime: Runtime, *, worker: bool) -> SimulatedApp:
    app = SimulatedApp(URL, worker=worker, ttl=world.mix.lease_seconds, runtime=runtime)
    app.world, app.process = world, process
    app.embedded = worker and world.mix.embedded
    random = world.random(f"steps of {process}")
    app.functions = programs.register(app, runtime, random, world.boundary)
    return app


class _Client:
    """Starts work, waits for it, approves and cancels, and asks raw requests in between."""

    def __init__(self, world: World, process: Process, runtime: SimulatedRuntime) -> None:
        self._world = world
        self._process = process
        self._runtime = runtime
        self._random = world.random(f"client {process}")
        self._app = _app(world, process, runtime, worker=False)
        self._raw: RawClient
        self._waiting = 0
        self._doing = 0
        self._drawn = 0

    async def run(self) -> None:
        await self._app.open()
        pid = f"{self._process.name}-{self._process.incarnation}"
        self._raw = RawClient(
            pid,
            self._app.connection,
            self._runtime,
            self._world.ledger.succeeded,
            self._world.plan.kinds,
        )
        guards.contend(self._world, self._process, self._runtime, self._app.connection)
        while True:
            pause = self._random.expovariate(1 / CLIENT_PAUSE_SECONDS)
            await self._runtime.sleep(pause)
            self._drawn += 1
            if not self._world.busy:
                await self._approve_all()
            elif self._doing < MAX_DOING and self._world.may_act(f"{pid}#{self._drawn}"):
                self._doing += 1
                self._runtime.spawn(self._do_something(self._drawn), "client-work")

    async def _do_something(self, number: int) -> None:
        # Of its own, so that an action that a plan leaves out shifts none of the others.
        random = self._world.random(f"client {self._process} {number}")
        try:
            if random.random() < SHARE_OF_STARTS and self._waiting < MAX_WAITING_HANDLES:
                await self._start(number, random)
            else:
                await self._raw.ask(random)
        except KeptError as error:
            self._world.trace.note("failed", self._process.name, type(error).__name__)
        finally:
            self._doing -= 1

    async def _start(self, number: int, random: Random) -> None:
        program = programs.draw_program(random)
        id = f"{self._process.name}-{self._process.incarnation}-{number}"
        if random.random() < SHARE_OF_RACES:
            # What it is must not depend on who is first.
            id = f"race-{int(self._world.loop.time() / 10)}"
            program = programs.draw_program(self._world.random(id))
        if (allowed := self._world.plan.programs) is not None and program.function not in allowed:
            return
        function = self._app.functions[program.function]
        handle = await self._app.start(function, *program.args, id=id)
        self._world.expect(id, program)
        spawn = self._runtime.spawn
        spawn(self._wait(handle), f"wait-{id}")
        if program.approved:
            spawn(self._approve(id), f"approve-{id}")
        if program.canceled:
            spawn(self._cancel(handle), f"cancel-{id}")

    async def _wait(self, handle: Handle[object]) -> None:
        """Until there is an outcome, as a patient user would."""
        self._waiting += 1
        self._world.begin_waiting(self._process, handle.id)
        while True:
            try:
                await handle.result()
            except ConnectionFailedError:
                continue
            except PromiseError:
                pass
            except KeptError:
                await self._runtime.sleep(START_AGAIN_SECONDS)
                continue
            break
        self._waiting -= 1
        self._world.end_waiting(self._process, handle.id)

    async def _approve(self, id: str) -> None:
        """Settles the promise of an approval, as soon as the workflow has made it."""
        random = self._world.random(f"approval of {id}")
        await self._runtime.sleep(random.uniform(0, LONGEST_APPROVAL_SECONDS))
        value = payload.encode("yes")
        settle = r.PromiseSettle(f"{id}.{programs.APPROVAL}", PromiseState.RESOLVED, value)
        while True:
            try:
                response = await self._app.connection.send(settle)
                if response.ok:
                    return
                root = await self._app.connection.send(r.PromiseGet(id))
                if isinstance(root.data, PromiseResult) and root.data.promise.settled_at:
                    return
            except ConnectionFailedError:
                pass
            await self._runtime.sleep(START_AGAIN_SECONDS)

    async def _approve_all(self) -> None:
        """What clients that died would have approved: nothing else settles those promises."""
        for goal in self._world.pending_goals():
            if goal.program.approved:
                await self._approve(goal.id)

    async def _cancel(self, handle: Handle[object]) -> None:
        random = self._world.random(f"cancellation of {handle.id}")
        await self._runtime.sleep(random.uniform(0, CANCEL_AFTER_SECONDS))
        try:
            await handle.cancel()
        except KeptError as error:
            self._world.trace.note("failed", self._process.name, type(error).__name__)


# -- what came of it


def check_goal(world: World, goal: Goal) -> None:
    """A goal's stored promise holds one of the results that are right."""
    promise = world.monitor.state().promises[goal.id]
    problem = _problem(promise, goal)
    if problem is not None:
        world.ledger.break_off("results are right", f"{goal.id} ({goal.program}): {problem}")


def _problem(promise: Promise, goal: Goal) -> str | None:
    error = payload.outcome_error(promise.record())
    if isinstance(error, PromiseCanceledError) and goal.program.canceled:
        return None
    if error is not None:
        return repr(error)
    result = payload.decode(promise.value)
    return None if result in goal.program.results else f"it is {result!r}"
