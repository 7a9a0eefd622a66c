"""What a simulated client does: it starts work and waits for it, approves, cancels, listens, replays
dead letters, and asks raw requests in between."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from kept.client.connection import Connection
from kept.errors import ConnectionFailedError, KeptError, NotFoundError, PromiseError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseState
from kept.protocol.responses import CONFLICT, PromiseResult, ReplayResult
from kept.sdk import payload
from kept.sdk.app import DEFAULT_QUEUE
from kept.sdk.handle import Handle
from kept.sim import base_protocol, guards, once, planners, programs, scripts
from kept.sim.breakage import Broken
from kept.sim.process import Process
from kept.sim.programs import Program
from kept.sim.requests import RawClient
from kept.sim.runtime import SimulatedRuntime
from kept.sim.scripts import Script
from kept.sim.tenants import Twin

if TYPE_CHECKING:
    from kept.sim.roles import SimulatedApp
    from kept.sim.world import World

# Seconds between two things that a client does.
PAUSE_SECONDS: Final = 0.4
# In a short run, which must see as much.
DENSE_PAUSE_SECONDS: Final = 0.25
SHARE_OF_STARTS: Final = 0.15
# Of those, work that is sent to receivers.
SHARE_OF_BASE: Final = 0.2
# Work under one id that several clients may start.
SHARE_OF_RACES: Final = 0.3
RACE_SECONDS: Final = 10.0
# Conversations whose answers are known beforehand.
SHARE_OF_SCRIPTS: Final = 0.1
SHARE_OF_RARE: Final = 0.7
# Of a long run, by when each script was played once.
ALL_PLAYED: Final = 0.8
SHARE_OF_LISTENERS: Final = 0.4
MAX_WAITING_HANDLES: Final = 10
# Requests of one client that are under way at one time, besides those that wait for outcomes.
MAX_DOING: Final = 24
MAX_PLAYING: Final = 4
AGAIN_SECONDS: Final = 0.5
LONGEST_APPROVAL_SECONDS: Final = 6.0
CANCEL_AFTER_SECONDS: Final = 2.0
BASE_LIFETIME_MS: Final = 86_400_000


class Client:
    """One client process."""

    def __init__(
        self, world: World, process: Process, runtime: SimulatedRuntime, app: SimulatedApp
    ) -> None:
        self._world = world
        self._process = process
        self._runtime = runtime
        self._random = world.random(f"client {process}")
        self._app = app
        self._raw: RawClient
        self._twin = Twin(world, process, runtime, app.url) if world.mix.tenants else None
        self._addresses = sorted(world.reachable())
        allowed = world.plan.programs
        self._scripts = [
            name for name in scripts.playable(world.mix) if allowed is None or name in allowed
        ]
        self._waiting = 0
        self._doing = 0
        self._playing = 0
        self._drawn = 0

    async def run(self) -> None:
        """Goes on until the process dies; once the world is not busy it only ends what is begun."""
        await self._app.open()
        pid = f"{self._process.name}-{self._process.incarnation}"
        self._raw = RawClient(
            pid,
            self._connection,
            self._runtime,
            self._world.ledger.succeeded,
            self._addresses,
            self._world.ledger.break_off,
            self._world.plan.kinds,
            dense=self._world.is_short,
        )
        if self._world.mix.retention_seconds is not None:
            self._runtime.spawn(self._put_retention(), "put-retention")
        guards.contend(self._world, self._process, self._runtime, self._connection)
        once.call_once(self._world, self._process, self._runtime, self._connection)
        planners.plan(self._world, self._process, self._runtime, self._connection)
        while True:
            pause = (
                DENSE_PAUSE_SECONDS if self._world.is_short else PAUSE_SECONDS * self._world.pace
            )
            await self._runtime.sleep(self._random.expovariate(1 / pause))
            self._drawn += 1
            if not self._world.busy:
                await self._help_all()
            elif self._doing < MAX_DOING and self._world.may_act(f"{pid}#{self._drawn}"):
                self._doing += 1
                self._runtime.spawn(self._do_something(self._drawn), "client-work")

    async def _put_retention(self) -> None:
        """What the programs leave goes soon."""
        seconds = self._world.mix.retention_seconds or 0.0
        put = r.QueuePut(DEFAULT_QUEUE, retention=int(seconds * 1_000))
        while True:
            try:
                if (await self._connection.send(put)).ok:
                    return
            except KeptError:
                pass
            await self._runtime.sleep(AGAIN_SECONDS)

    @property
    def _connection(self) -> Connection:
        return self._app.connection

    async def _do_something(self, number: int) -> None:
        # Of its own, so that an action that a plan leaves out shifts none of the others.
        random = self._world.random(f"client {self._process} {number}")
        if self._twin is not None:
            asked = self._world.random(f"twin {self._process} {number}")
            self._runtime.spawn(self._twin.ask(asked), f"twin-{number}")
        try:
            if self._scripts and (random.random() < SHARE_OF_SCRIPTS or self._is_behind()):
                await self._play_beside(number, random)
            elif random.random() < SHARE_OF_STARTS and self._waiting < MAX_WAITING_HANDLES:
                await self._start(number, random)
            else:
                await self._raw.ask(random)
        except KeptError as error:
            self._world.trace.note("failed", self._process.name, type(error).__name__)
        finally:
            self._doing -= 1

    def _is_behind(self) -> bool:
        """Whether so many scripts were not played yet that some would be left at the end."""
        if self._world.is_short:
            return False
        counts = self._world.trace.counts
        unplayed = sum(not counts[f"script {name}"] for name in self._scripts)
        passed = self._world.loop.time() / (self._world.plan.horizon * ALL_PLAYED)
        return unplayed > len(self._scripts) * max(0.0, 1.0 - passed)

    async def _play_beside(self, number: int, random: Random) -> None:
        """A script takes long where much goes wrong: it takes no single request's place."""
        if self._playing >= MAX_PLAYING:
            await self._raw.ask(random)
            return
        self._playing += 1
        self._doing -= 1
        try:
            await self._play(number, random)
        finally:
            self._playing -= 1
            self._doing += 1

    async def _play(self, number: int, random: Random) -> None:
        """A script: the one that has been played least, or any."""
        counts = self._world.trace.counts
        name = random.choice(self._scripts)
        if random.random() < SHARE_OF_RARE:
            # Not the first of those in the list: a short run plays few, and each run others.
            fewest = min(counts[f"script {each}"] for each in self._scripts)
            name = random.choice([n for n in self._scripts if counts[f"script {n}"] == fewest])
        key = f"{name.partition('@')[0]}-{self._process.name}-{self._process.incarnation}-{number}"
        mix = self._world.mix
        play = Script(
            key,
            self._connection,
            self._runtime,
            random,
            exact=scripts.is_exact(mix),
            prompt=mix.prompt,
            provoked=self._world.ledger.provoked,
        )
        self._world.trace.note(f"script {name}", self._process.name, key)
        if self._twin is not None:
            self._runtime.spawn(self._twin.play(name, key), f"twin-{key}")
        try:
            await scripts.SCRIPTS[name](play)
        except Broken as broken:
            self._world.ledger.break_off(broken.oracle, f"{name}: {broken.why}")

    # -- work

    async def _start(self, number: int, random: Random) -> None:
        id = f"{self._process.name}-{self._process.incarnation}-{number}"
        if random.random() < SHARE_OF_BASE:
            await self._start_base(f"base-{id}", random)
            return
        program = programs.draw_program(random)
        if random.random() < SHARE_OF_RACES:
            # What it is must not depend on who is first.
            id = f"race-{int(self._world.loop.time() / (RACE_SECONDS * self._world.pace))}"
            program = programs.draw_program(self._world.random(id))
        if not self._may_start(program.function):
            return
        if program.hostile_id:
            id = f"{id} ☃/ü\u2028%2F"
        function = self._app.functions[program.function]
        if program.by_name is not None:
            names = function.signature.parameters
            args = dict(zip(names, program.args, strict=True))
            handle = await self._app.enqueue(program.by_name, args=args, id=id)
        else:
            timeout = program.timeout
            handle = await self._app.start(function, *program.args, id=id, timeout=timeout)
        self._started(id, program, handle)
        if random.random() < SHARE_OF_LISTENERS:
            await self._listen(id, random)

    def _may_start(self, program: str) -> bool:
        allowed = self._world.plan.programs
        return allowed is None or program in allowed

    async def _start_base(self, id: str, random: Random) -> None:
        plan = base_protocol.draw_plan(random, self._addresses)
        if not self._may_start(base_protocol.FUNCTION):
            return
        create = r.PromiseCreate(
            id,
            self._runtime.now_ms() + BASE_LIFETIME_MS,
            base_protocol.call_param(plan),
            {tag.TARGET: plan.target},
        )
        response = await self._connection.send(create)
        if response.ok:
            program = Program(base_protocol.FUNCTION, (), (plan.total,))
            self._started(id, program, self._app.handle(id))
            await self._listen(id, random)

    def _started(self, id: str, program: Program, handle: Handle[object]) -> None:
        self._world.goals.expect(id, program)
        spawn = self._runtime.spawn
        spawn(self._wait(handle), f"wait-{id}")
        if program.approved:
            spawn(self._approve(id), f"approve-{id}")
        if program.messages:
            spawn(self._talk(id, program.messages), f"talk-{id}")
        if program.canceled:
            spawn(self._cancel(handle), f"cancel-{id}")
        if program.halted:
            spawn(self._halt(id), f"halt-{id}")

    async def _listen(self, id: str, random: Random) -> None:
        address = random.choice(self._addresses)
        if address.startswith("poll://any"):
            return
        response = await self._connection.send(r.PromiseRegisterListener(id, address))
        data = response.data
        if isinstance(data, PromiseResult) and data.promise.state is PromiseState.PENDING:
            self._world.deliveries.registered(id, address)

    async def _wait(self, handle: Handle[object]) -> None:
        """Until there is an outcome, as a patient user would."""
        self._waiting += 1
        self._world.begin_waiting(self._process, handle.id)
        while True:
            try:
                await handle.result()
            except ConnectionFailedError:
                continue
            except NotFoundError:
                # It was settled while nobody could ask, and has left.
                if handle.id not in self._world.goals.departed:
                    await self._runtime.sleep(AGAIN_SECONDS)
                    continue
            except PromiseError:
                await self._replay(handle.id)
            except KeptError:
                await self._runtime.sleep(AGAIN_SECONDS)
                continue
            break
        self._waiting -= 1
        self._world.end_waiting(self._process, handle.id)

    # -- what work needs from outside

    async def _approve(self, id: str) -> None:
        """Settles the promise of an approval, as soon as the workflow has made it."""
        random = self._world.random(f"approval of {id}")
        await self._runtime.sleep(random.uniform(0, LONGEST_APPROVAL_SECONDS))
        value = payload.encode("yes")
        settle = r.PromiseSettle(f"{id}.{programs.APPROVAL}", PromiseState.RESOLVED, value)
        while True:
            try:
                response = await self._connection.send(settle)
                if response.ok:
                    return
                root = await self._connection.send(r.PromiseGet(id))
                if isinstance(root.data, PromiseResult) and root.data.promise.settled_at:
                    return
            except ConnectionFailedError:
                pass
            await self._runtime.sleep(AGAIN_SECONDS)

    async def _talk(self, id: str, messages: int) -> None:
        """Sends messages one after the other, each until it was taken, and some of them again."""
        random = self._world.random(f"talk to {id}")
        for number in range(messages):
            await self._runtime.sleep(random.choice((0.0, 0.1, 1.5)))
            value = payload.encode(str(number))
            send = r.SignalSend(id, programs.MAILBOX, value, f"message {number}")
            times = random.choice((1, 1, 2))
            while times:
                try:
                    response = await self._connection.send(send)
                except ConnectionFailedError:
                    response = None
                if response is not None and response.status == CONFLICT:
                    return
                if response is not None and response.ok:
                    times -= 1
                else:
                    await self._runtime.sleep(AGAIN_SECONDS)

    async def _help_all(self) -> None:
        """What clients that died would have done: nothing else ends that work."""
        for goal in self._world.goals.pending():
            if goal.program.approved:
                await self._approve(goal.id)
            if goal.program.messages:
                await self._talk(goal.id, goal.program.messages)
        for goal in self._world.goals.halted():
            await self._let_go_on(goal.id)
        for goal in self._world.goals.to_replay():
            await self._replay(goal.id)

    async def _replay(self, id: str) -> None:
        """Replays work that was given up, where it must be replayed to succeed."""
        goals = self._world.goals
        for goal in goals.to_replay():
            if goal.id != id or goal.program.repair is None:
                continue
            self._world.boundary.repair(goal.program.repair)
            try:
                response = await self._connection.send(r.DeadReplay([id]))
            except ConnectionFailedError:
                return
            if isinstance(response.data, ReplayResult):
                replay = response.data.replays[0]
                if replay.replayed_as is not None:
                    goals.replayed(id, replay.replayed_as)

    async def _halt(self, id: str) -> None:
        """Halts work as an operator does, and lets it go on after a while."""
        random = self._world.random(f"halt of {id}")
        await self._runtime.sleep(random.uniform(0, CANCEL_AFTER_SECONDS))
        try:
            await self._connection.send(r.TaskHalt(id))
            await self._runtime.sleep(random.uniform(0, CANCEL_AFTER_SECONDS))
        finally:
            await self._let_go_on(id)

    async def _let_go_on(self, id: str) -> None:
        try:
            await self._connection.send(r.TaskContinue(id))
        except ConnectionFailedError:
            self._world.trace.note("failed", self._process.name, "task.continue")

    async def _cancel(self, handle: Handle[object]) -> None:
        random = self._world.random(f"cancellation of {handle.id}")
        await self._runtime.sleep(random.uniform(0, CANCEL_AFTER_SECONDS))
        try:
            await handle.cancel()
        except KeptError as error:
            self._world.trace.note("failed", self._process.name, type(error).__name__)
