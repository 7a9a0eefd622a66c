"""What runs in a simulated process: a server, a worker, a client. All of it is the real code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yarl

from kept.client.connection import Connection
from kept.client.local import LocalConnection
from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.errors import KeptError, StoreError
from kept.protocol.records import MessageKind
from kept.runtime import Runtime
from kept.sdk.app import App
from kept.sdk.functions import Function
from kept.sdk.worker import MAX_CACHED
from kept.server.app import Door
from kept.server.auth import AuthOptions, open_authenticator
from kept.server.authority import Authenticator
from kept.server.limits import Admission, Limits
from kept.server.reception import Reception
from kept.sim import programs
from kept.sim.calm import TimedConnection
from kept.sim.clients import Client
from kept.sim.ledger import ObservedConnection
from kept.sim.network import Network
from kept.sim.process import Process
from kept.sim.programs import rollouts
from kept.sim.receivers import Receiver
from kept.sim.recording import WireConnection
from kept.sim.runtime import SimulatedRuntime
from kept.sim.tenants import NamedTenants
from kept.transports.http import HttpPushTransport
from kept.transports.poll import PollTransport

if TYPE_CHECKING:
    from kept.sim.world import World

# A load balancer's address: which server answers is the network's choice.
URL: Final = "http://kept.simulation"
START_AGAIN_SECONDS: Final = 0.5


async def run(world: World, role: str, process: Process, runtime: SimulatedRuntime) -> None:
    """The main program of a process. One that is asked to stop leaves in good order and ends."""
    if role == "server":
        await _serve(world, process, runtime)
    elif role == "worker":
        await _work(world, process, runtime)
    elif role == "receiver":
        await Receiver(world, process, runtime).run()
    else:
        app = _app(world, process, runtime, worker=False)
        await Client(world, process, runtime, app).run()


# -- server


async def _serve(world: World, process: Process, runtime: Runtime) -> None:
    poll = PollTransport(runtime)
    store = world.disk.store(process, runtime)
    push = SimulatedPush(world.network, process, runtime)
    engine = Engine(store, runtime, EngineConfig(), transports=(poll, push), observer=store)
    poll.on_connect = lambda group: engine.receiver_connected()
    authenticator = _authenticator(world, runtime)
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
    if engine.statistics.waiting or engine.statistics.queued:
        numbers = f"{engine.statistics.waiting} wait, {engine.statistics.queued} are queued"
        world.ledger.break_off("nothing is left in a stopped engine", f"{process}: {numbers}")
    world.left(process)


def _authenticator(world: World, runtime: Runtime) -> Authenticator:
    # Tokens themselves are not played: their library has a clock and entropy of its own.
    return NamedTenants() if world.mix.tenants else open_authenticator(AuthOptions(), runtime)


async def _no_metrics() -> bytes:
    return b""


class SimulatedPush(HttpPushTransport):
    """HTTP push, whose exchange is the simulated network's."""

    def __init__(self, network: Network, process: Process, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._network = network
        self._process = process

    async def _post(self, url: yarl.URL, message: bytes, kind: MessageKind) -> int:
        return await self._network.push(self._process, url.host or "", message)


# -- worker and client


async def _work(world: World, process: Process, runtime: Runtime) -> None:
    app = _app(world, process, runtime, worker=True)
    while True:
        try:
            await app.open()
        except KeptError:
            # Of its store; or its schedules could not be put.
            await runtime.sleep(START_AGAIN_SECONDS)
        else:
            break
    await process.told_to_stop.wait()
    pid, undisturbed = app.worker_pid, not world.restarting
    world.ledger.leaving[pid] = None
    await app.close()
    tasks, unreleased = world.monitor.state().tasks, world.ledger.unreleased
    held = [
        id for id, task in tasks.items() if task.pid == pid and (id, task.version) not in unreleased
    ]
    if undisturbed and held and pid not in world.ledger.unheard:
        world.ledger.break_off("who stops hands back", f"{process} left and holds {held}")
    world.left(process)


class SimulatedApp(App):
    """An `App` whose connection goes over the simulated network, or to an engine of its own."""

    world: World
    process: Process
    embedded: bool
    functions: dict[str, Function[..., Any]]

    @property
    def worker_pid(self) -> str:
        """What its worker is called in leases."""
        return "" if self._worker is None else self._worker.pid

    async def _connect(self) -> Connection:
        connection = await (self._embedded() if self.embedded else self._remote())
        world = self.world
        recorded = world.recording.connection(connection, self.process)
        observed = ObservedConnection(recorded, world.ledger, self.process)
        return TimedConnection(observed, world)

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
    cache = MAX_CACHED if world.mix.cache is None else world.mix.cache
    ttl = world.mix.lease_seconds
    app = SimulatedApp(URL, worker=worker, ttl=ttl, cache=cache, runtime=runtime)
    app.world, app.process = world, process
    app.embedded = worker and world.mix.embedded
    random = world.random(f"steps of {process}")
    new = world.is_deployed(process)
    app.functions = programs.register(app, runtime, random, world.boundary, new=new)
    if worker and world.mix.plans:
        function, pace = app.functions[rollouts.NAME], round(world.pace)
        rollouts.schedule(app, function, new=new, pace=pace)
    return app
