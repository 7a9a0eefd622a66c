"""The world of one seed: processes on machines, a network between them, and one disk under all.

The world starts processes, starts them again when they died, and looks on at every tick. What runs
in the processes is the real code; `faults.py` is what happens to them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

from kept.check.liveness import enabled_steps
from kept.check.scans import Scans
from kept.client.exchange import AnswerLostError, NotSentError
from kept.client.http import HttpConnection
from kept.errors import KeptError
from kept.protocol.storage import DEFAULT_TENANT
from kept.sim import roles
from kept.sim.audit import Audit, check_counts
from kept.sim.breakage import LIVENESS, Broken
from kept.sim.calm import check_calm
from kept.sim.deliveries import Deliveries
from kept.sim.disk import Disk
from kept.sim.goals import Goals, check_letters
from kept.sim.guards import GuardOracle, overdue_entry
from kept.sim.inspector import InspectingMonitor, Inspector
from kept.sim.ledger import Boundary, Ledger
from kept.sim.loop import SimulatedLoop
from kept.sim.network import Network
from kept.sim.once import OnceOracle
from kept.sim.plan import Plan
from kept.sim.process import Process, current_owner
from kept.sim.receivers import addresses_of
from kept.sim.recording import Recording, ServerClock
from kept.sim.runtime import EPOCH_MS, Clock, OnlookersRuntime, SimulatedRuntime
from kept.sim.strikes import Strikes
from kept.sim.tenants import TENANT, check_apart
from kept.sim.trace import KEPT_EVENTS, Trace
from kept.sim.trees import check_trees
from kept.sim.witness import Witness

# What one tick of the command line is.
TICK_SECONDS: Final = 1.0
# Seconds from a process's death to its next start.
DOWN_SECONDS: Final = (0.2, 8.0)
# A graceful stop takes no longer, and under faults it is cut short then.
LONGEST_STOP_SECONDS: Final = 60.0
TICKS_PER_COMPARISON: Final = 20
# When machines get the new program, as shares of a run.
DEPLOYED: Final = (0.0, 0.8)
# A run below so many ticks is as busy as clients can be; a longer one is as busy in sum as one
# client in so many of those.
SHORT_TICKS: Final = 200
PACED_TICKS: Final = 100
QUIET_CHECK_SECONDS: Final = 0.001
# Once faults have stopped, everything pending settles within this, and a background step that is
# enabled is taken within that.
SETTLE_SECONDS: Final = 3_600
OVERDUE_MS: Final = 60_000
STEPS_PER_WHOLE_CHECK: Final = 5_000


class Machine:
    """Where a process runs: a name, and a clock that outlives it."""

    def __init__(self, role: str, name: str, clock: Clock) -> None:
        self.role = role
        self.name = name
        self.clock = clock
        self.incarnations = 0
        self.process: Process | None = None


class World:
    """The world of a plan. `play` runs it and raises what broke; afterwards it can be examined.
    `kept_events` is how much of its trace it keeps, None all."""

    def __init__(
        self, plan: Plan, loop: SimulatedLoop, kept_events: int | None = KEPT_EVENTS
    ) -> None:
        self.plan = plan
        self.seed = plan.seed
        self.mix = mix = plan.mix
        self.loop = loop
        self.strikes = Strikes(plan.strikes)
        # What clients did, by name.
        self.actions: list[str] = []
        self.faulty = True
        self.busy = True
        self.restarting = True
        self.trace = Trace(loop.time, kept_events)
        self.ledger = Ledger(self.trace)
        # What the second tenant was told.
        self.twins = Ledger(self.trace)
        self.boundary = Boundary(self.ledger, loop.time)
        self.guards = GuardOracle(self.ledger)
        self.once = OnceOracle(self.ledger, calm=mix.calm)
        self.monitor = InspectingMonitor(whole_every=STEPS_PER_WHOLE_CHECK)
        self.deliveries = Deliveries(mix, self.ledger, self.monitor.state)
        self.goals = Goals(self.ledger, self.boundary, self.monitor.state)
        # What clients wait for now, and nobody may wait for ever.
        self._waiting: dict[Process, Counter[str]] = {}
        clock = Clock(loop)
        onlooker = OnlookersRuntime(loop, loop.kernel, clock, self.random("store"))
        self.machines = self._machines()
        self.server_clock = ServerClock(
            lambda: self.disk.medium.clock,
            [m.clock for m in self.machines.values() if m.role != "client"],
        )
        self.recording = Recording(loop, plan.seed, self.server_clock)
        self.network = Network(
            loop, self.random("network"), mix, self.trace, self.recording, self.strikes
        )
        self.disk = Disk(
            loop,
            self.random("disk"),
            mix,
            self.trace,
            onlooker,
            self.monitor,
            self.kill_next,
            self.strikes,
            self.recording,
            self.ledger.break_off,
        )
        self._births = self.random("births")
        self._deployed_at = plan.horizon * self.random("deploy").uniform(*DEPLOYED)
        self._questions = self.random("questions")
        self.inspector = Inspector(mix, self.ledger, self.milliseconds, self.reachable())
        self.monitor.inspector = self.inspector
        self.inspector.departed = self.deliveries.departed = self.goals.departed
        self.ledger.witness = Witness(mix, self.ledger, self.monitor.state, loop.time)
        self.deliveries.on_unblock = self.inspector.unblocked
        loop.after_callback = self._after_callback

    def random(self, name: str) -> Random:
        """A generator of its own for each part, so that one part's draws do not shift another's."""
        return Random(f"{self.seed}/{name}")

    def _machines(self) -> dict[str, Machine]:
        machines: dict[str, Machine] = {}
        counts = {
            "server": self.mix.servers,
            "worker": self.mix.workers,
            "client": self.mix.clients,
            "receiver": self.mix.receivers,
        }
        random = self.random("clocks")
        for role, count in counts.items():
            for number in range(1, count + 1):
                spread, drift = self.mix.clock_spread_ms, self.mix.drift
                offset = random.randint(-spread, spread)
                rate = 1.0 + random.uniform(-drift, drift)
                name = f"{role}-{number}"
                machines[name] = Machine(role, name, Clock(self.loop, offset, rate))
        return machines

    # -- life and death

    def start_all(self) -> None:
        for machine in self.machines.values():
            self.start(machine)

    def start(self, machine: Machine) -> None:
        """Starts a machine's process, unless one runs, or all are to end."""
        if not self.restarting:
            return
        if machine.process is not None and machine.process.alive:
            return
        machine.incarnations += 1
        process = Process(machine.name, machine.incarnations)
        machine.process = process
        self.loop.add_process(process)
        name = f"{machine.name}/{machine.incarnations}"
        runtime = SimulatedRuntime(self.loop, process, machine.clock, self.random(name))
        self.trace.note("start", machine.name, str(process.incarnation))
        process.spawn(self.loop, roles.run(self, machine.role, process, runtime), "main")

    def is_deployed(self, process: Process) -> bool:
        """Whether a process that starts now runs the new program: some machines got it first, the
        others get it when they start again later."""
        return process.name.endswith("-1") or self.loop.time() >= self._deployed_at

    def kill(self, process: Process) -> None:
        """Ends a process now, between two callbacks; it starts again later while faults last."""
        if not process.alive:
            return
        self.trace.note("kill", process.name, str(process.incarnation))
        kind = "stopped" if process.told_to_stop.is_set() else "crash"
        process.kill()
        self.loop.remove_process(process)
        if not self.restarting:
            self.recording.fault(kind, process.name)
            return
        machine = self.machines[process.name]
        delay = self._births.uniform(*DOWN_SECONDS)
        self.recording.fault(kind, process.name, seconds=delay)
        self.loop.call_later(delay, self.start, machine, context=self.loop.kernel.context)

    def kill_next(self, process: Process, why: str, callbacks: int = 0) -> None:
        """Ends a process after so many more of its callbacks: at any await."""
        self.trace.note(f"fault {why}", process.name, str(callbacks))
        process.callbacks_left = callbacks

    def stop(self, process: Process) -> None:
        """Asks a process to stop in good order, and kills it if it takes too long."""
        process.told_to_stop.set()
        context = self.loop.kernel.context
        self.loop.call_later(LONGEST_STOP_SECONDS, self.kill, process, context=context)

    def left(self, process: Process) -> None:
        """A process has stopped in good order."""
        self.trace.note("left", process.name)
        process.callbacks_left = 0

    async def stop_all(self) -> None:
        """Everybody stops in good order, workers first, and soon: there are no faults any more."""
        self.restarting = False
        for role in ("receiver", "worker", "server"):
            for process in self.alive(role):
                process.told_to_stop.set()
            deadline = self.loop.time() + LONGEST_STOP_SECONDS
            while left := self.alive(role):
                if self.loop.time() > deadline:
                    raise Broken("stops in time", f"{left[0]} still runs")
                await self.loop.pause(TICK_SECONDS)
        self.look()

    def _after_callback(self, process: Process) -> None:
        left = process.callbacks_left
        if left is None or not process.alive:
            return
        if left <= 0:
            self.kill(process)
        else:
            process.callbacks_left = left - 1

    def alive(self, role: str) -> list[Process]:
        """The living processes of a role."""
        return [
            m.process
            for m in self.machines.values()
            if m.role == role and m.process is not None and m.process.alive
        ]

    # -- what clients do

    @property
    def pace(self) -> float:
        """How many times longer than in a short run clients pause: a long one is not much busier in
        sum, however many they are, so that what it adds is time."""
        ticks = SHORT_TICKS if self.is_short else PACED_TICKS
        return max(1.0, self.plan.horizon * self.mix.clients / ticks)

    @property
    def is_short(self) -> bool:
        """Whether clients ask more at one time, because little time must see every kind succeed."""
        return self.plan.horizon < SHORT_TICKS

    def may_act(self, action: str) -> bool:
        """Whether a client does what it has drawn, which is noted then."""
        only = self.plan.actions
        if only is not None and action not in only:
            return False
        self.actions.append(action)
        return True

    def begin_waiting(self, process: Process, id: str) -> None:
        """Somebody in a process waits for an outcome."""
        self._waiting.setdefault(process, Counter())[id] += 1

    def end_waiting(self, process: Process, id: str, what: str = "outcome") -> None:
        """The outcome came."""
        self._waiting[process][id] -= 1
        self.trace.counts[what] += 1

    # -- looking on

    def look(self) -> None:
        """Raises the first thing that broke."""
        self.monitor.raise_first()
        for ledger in (self.ledger, self.twins):
            if ledger.broken is not None:
                raise ledger.broken
        for context in self.loop.errors:
            error = context.get("exception")
            # A process that dies between a failed exchange and whoever asked leaves such a future.
            if not isinstance(error, KeptError | AnswerLostError | NotSentError):
                text = f"{context.get('message')}: {error!r}"
                raise Broken("no unexpected exception", text) from error
        self.loop.errors.clear()

    async def compare(self) -> None:
        """Holds the store against the steps that were taken, and against what was acknowledged."""
        if not self.disk.quiet:
            return
        store = await self.disk.medium.keeper()
        tenants = (DEFAULT_TENANT, TENANT) if self.mix.tenants else (DEFAULT_TENANT,)
        dumps = {tenant: await store.dump(tenant) for tenant in tenants}
        for tenant, each in dumps.items():
            self.monitor.compare(each, tenant)
        if self.mix.tenants:
            self.twins.compare(dumps[TENANT], self.disk.medium.clock)
            check_apart(dumps)
        dump = dumps[DEFAULT_TENANT]
        self.ledger.compare(dump, self.disk.medium.clock)
        self.guards.compare(dump)
        clock = self.disk.medium.clock
        await Scans(store, self.monitor.states, clock, self._questions).compare()
        check_letters(self.ledger, dump)
        check_counts(await store.counts(), dumps.values())

    async def run(self, ticks: int) -> None:
        """So many ticks with faults."""
        for tick in range(1, ticks + 1):
            await self.loop.pause(TICK_SECONDS)
            self.look()
            if tick % TICKS_PER_COMPARISON == 0:
                await self.compare()

    async def settle(self) -> None:
        """Faults have stopped: everything pending settles, nobody waits, nothing stays enabled."""
        seconds = self.plan.settle_seconds or SETTLE_SECONDS
        deadline = self.loop.time() + seconds
        while unsettled := self._unsettled():
            if self.loop.time() > deadline:
                raise Broken(LIVENESS, f"{seconds} s after the last fault: {unsettled}")
            await self.loop.pause(TICK_SECONDS)
            self.look()
        self.monitor.check_everything()
        await self.compare()
        self.goals.check()
        check_trees(self.monitor.state())
        await self._audit()
        if self.mix.calm:
            check_calm(self)
        self.look()

    def _unsettled(self) -> str:
        """What is still pending, in words; nothing when all is well."""
        for machine in self.machines.values():
            if machine.role == "server" and not self.network.listens(machine.name):
                return f"{machine.name} has not started again"
        state = self.monitor.state()
        for goal in self.goals.pending():
            return f"{goal.id} is not settled; its task: {state.tasks.get(goal.id)}"
        for process, ids in self._waiting.items():
            for id, count in ids.items():
                if count and process.alive:
                    return f"{process.name} waits for {id}"
        if missing := self.deliveries.missing(self.reachable()):
            return missing
        for tenant, each in self.monitor.states.items():
            overdue = enabled_steps(each, self.disk.medium.clock - OVERDUE_MS)
            if overdue:
                return f"{overdue[0].name} of {overdue[0].id} of {tenant} is overdue"
        return overdue_entry(self) or self.inspector.timetable.standing(state)

    async def _quiet(self) -> None:
        """Returns when nobody is in the middle of a transaction."""
        while not self.disk.quiet:
            await self.loop.pause(QUIET_CHECK_SECONDS)

    async def _audit(self) -> None:
        """Somebody walks all pages, while nothing else happens but time."""
        runtime = SimulatedRuntime(
            self.loop, self.loop.kernel, Clock(self.loop), self.random("audit")
        )
        servers = [m.name for m in self.machines.values() if m.role == "server"]
        exchange = self.network.exchange(self.loop.kernel, servers)
        connection = HttpConnection(roles.URL, runtime, exchange=exchange)
        audit = Audit(connection, self.monitor.state, lambda: self.disk.medium.clock, self._quiet)
        await audit.run()
        await connection.close()
        self.ledger.checked += audit.rows

    def reachable(self) -> frozenset[str]:
        """The addresses at which receivers are."""
        machines = [m.name for m in self.machines.values() if m.role == "receiver"]
        found = [addresses_of(name, int(name.rpartition("-")[2])) for name in machines]
        return frozenset().union(*found)

    def milliseconds(self) -> float:
        """Virtual time."""
        return self.loop.time() * 1_000

    @property
    def virtual_ms(self) -> int:
        """True time, which no process knows."""
        return EPOCH_MS + int(self.loop.time() * 1_000)


class Complaints(logging.Handler):
    """What the system logs with an exception that is none of its own: a fault of its code."""

    def __init__(self, report: Callable[[str, str], None]) -> None:
        super().__init__(logging.ERROR)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        owner = current_owner()
        if owner is not None and not owner.alive:
            # What a dead process says while it is buried.
            return
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, KeptError | AssertionError):
            self._report("no unexpected exception", f"{record.getMessage()}: {error!r}")
