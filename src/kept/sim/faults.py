"""What happens to a world: the faults of its mix that strike now and then.

Faults of single messages and commits are drawn where those pass (`network.py`, `disk.py`). Here are
those with a time of their own: crashes, partitions, stalls, clocks that jump, a disk out of order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from kept.sim.disk import NOW, SYNCED, WRITTEN
from kept.sim.mix import PERIODS
from kept.sim.process import Process
from kept.sim.storage_faults import BUSY, FULL, OUTAGE
from kept.sim.streams import Stream
from kept.sim.world import TICK_SECONDS, World

# A process dies after so many more of its callbacks, so at any of its awaits.
MAX_CALLBACKS_BEFORE_DEATH: Final = 400
PARTITION_SECONDS: Final = (1.0, 20.0)
# How long the disk stays out of order, full, or held by another program, for which a store waits.
DISK_SECONDS: Final = {OUTAGE: (0.5, 5.0), FULL: (0.5, 10.0), BUSY: (0.01, 15.0)}
# The power is cut at a moment of its own, or when a commit comes to a point; not later than this.
LONGEST_WAIT_FOR_COMMIT_SECONDS: Final = 5.0
# In leases: a process that stood still for longer comes back as a zombie.
STALL_LEASES: Final = (0.2, 3.0)
CLOCK_JUMPS_MS: Final = (-20_000, -3_000, -200, 200, 3_000, 20_000)
# The first strike comes early, so that a short run sees it too.
FIRST_STRIKE_SHARE: Final = 0.4


class Faults:
    """Strikes a world with the faults of its mix until `stop`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random("faults")
        self._strikes: dict[str, Callable[[Random], Awaitable[None]]] = {
            "server_crash": lambda random: self._crash("server", random),
            "worker_crash": lambda random: self._crash("worker", random),
            "client_crash": lambda random: self._crash("client", random),
            "server_stop": lambda random: self._stop("server", random),
            "worker_stop": lambda random: self._stop("worker", random),
            "crash_before_commit": self._crash_before_commit,
            "crash_after_commit": self._crash_after_commit,
            "partition": self._partition,
            "stall": self._stall,
            "clock_jump": self._clock_jump,
            "store_outage": lambda random: self._disk_is(OUTAGE, "store_outage", random),
            "disk_full": lambda random: self._disk_is(FULL, "disk_full", random),
            "disk_busy": lambda random: self._disk_is(BUSY, "disk_busy", random),
            "power_cut": self._power_cut,
            "receiver_crash": lambda random: self._crash("receiver", random),
            "stream_break": self._stream_break,
            "stream_stall": self._stream_stall,
        }

    def start(self) -> None:
        """Each fault goes its own way from now on."""
        world = self._world
        for name in PERIODS:
            if name in world.mix.faults:
                work = self._strike_always(name, world.mix.faults[name])
                world.loop.kernel.spawn(world.loop, work, f"fault-{name}")

    def stop(self) -> None:
        """All is well from now on: links are mended, the disk works, nobody stands still."""
        world = self._world
        world.faulty = world.network.faulty = world.disk.faulty = False
        world.network.mend_all()
        world.network.end_stalled()
        world.disk.faults.end_all()
        world.disk.crash_before = world.disk.crash_after = False
        for machine in world.machines.values():
            if machine.process is not None:
                machine.process.stalled_until = 0.0
                machine.process.callbacks_left = None
        world.trace.note("calm", "world")

    async def _strike_always(self, name: str, period: float) -> None:
        world, random = self._world, self._world.random(f"fault {name}")
        await world.loop.pause(
            random.uniform(1.0, max(1.0, world.plan.horizon * FIRST_STRIKE_SHARE))
        )
        while world.faulty:
            # A generator for each strike: one that a plan leaves out shifts none of the others.
            own = world.random(f"fault {name} {random.getrandbits(32)}")
            if world.strikes.allow(name):
                await self._strikes[name](own)
            await world.loop.pause(random.expovariate(1 / period))

    def _note(self, name: str, who: str, text: str, seconds: float | None = None) -> None:
        self._world.trace.note(f"fault {name}", who, text)
        self._world.recording.fault(name, who, text, seconds)

    # -- one each

    async def _crash(self, role: str, random: Random) -> None:
        victim = await self._one_of(role, random)
        if not self._world.faulty:
            return
        callbacks = random.randrange(MAX_CALLBACKS_BEFORE_DEATH)
        self._world.kill_next(victim, f"{role}_crash", callbacks)

    async def _stop(self, role: str, random: Random) -> None:
        process = await self._one_of(role, random)
        if not self._world.faulty:
            return
        self._note(f"{role}_stop", process.name, str(process.incarnation))
        self._world.stop(process)

    async def _one_of(self, role: str, random: Random) -> Process:
        """A process of a role, as soon as there is one."""
        while not (living := self._world.alive(role)):
            await self._world.loop.pause(TICK_SECONDS)
        return random.choice(living)

    async def _crash_before_commit(self, random: Random) -> None:
        self._world.disk.crash_before = True

    async def _crash_after_commit(self, random: Random) -> None:
        self._world.disk.crash_after = True

    async def _partition(self, random: Random) -> None:
        world = self._world
        others = [m.name for m in world.machines.values() if m.role != "server"]
        servers = [m.name for m in world.machines.values() if m.role == "server"]
        other, server = random.choice(others), random.choice(servers)
        links = random.choice((((other, server),), ((server, other),), _both(other, server)))
        for link in links:
            world.network.cut(*link)
        seconds = random.uniform(*PARTITION_SECONDS)
        text = " ".join("->".join(link) for link in links)
        self._note("partition", other, text, seconds)
        await world.loop.pause(seconds)
        for link in links:
            world.network.mend(*link)

    async def _stall(self, random: Random) -> None:
        victims: list[Process] = [
            process
            for role in ("server", "worker", "client", "receiver")
            for process in self._world.alive(role)
        ]
        if victims:
            victim = random.choice(victims)
            seconds = random.uniform(*STALL_LEASES) * self._world.mix.lease_seconds
            victim.stalled_until = self._world.loop.time() + seconds
            self._note("stall", victim.name, f"{seconds:.3f}", seconds)

    async def _clock_jump(self, random: Random) -> None:
        machine = random.choice(list(self._world.machines.values()))
        jump = random.choice(CLOCK_JUMPS_MS)
        self._world.server_clock.bounds()
        machine.clock.jump(jump)
        self._note("clock_jump", machine.name, str(jump))

    async def _disk_is(self, condition: str, name: str, random: Random) -> None:
        seconds = random.uniform(*DISK_SECONDS[condition])
        self._world.disk.faults.begin(condition, seconds)
        self._note(name, "disk", f"{seconds:.3f}", seconds)

    async def _power_cut(self, random: Random) -> None:
        world, disk = self._world, self._world.disk
        moment = random.choice((NOW, WRITTEN, SYNCED))
        if moment != NOW:
            commit = disk.next_commit(moment)
            limit = world.loop.pause(LONGEST_WAIT_FOR_COMMIT_SECONDS)
            await asyncio.wait({commit, limit}, return_when=asyncio.FIRST_COMPLETED)
            if not world.faulty and not commit.done():
                commit.cancel()
                return
        self._note("power_cut", "disk", moment)
        disk.cut_power(world.kill)

    async def _open_stream(self, random: Random) -> Stream:
        """One of the open streams, as soon as there is one."""
        while not (streams := self._world.network.streams()):
            await self._world.loop.pause(TICK_SECONDS)
        return random.choice(streams)

    async def _stream_break(self, random: Random) -> None:
        stream = await self._open_stream(random)
        self._note("stream_break", stream.client.name, str(stream.number))
        self._world.network.break_stream(stream)

    async def _stream_stall(self, random: Random) -> None:
        stream = await self._open_stream(random)
        self._note("stream_stall", stream.client.name, str(stream.number))
        stream.stalled = True


def _both(one: str, other: str) -> tuple[tuple[str, str], ...]:
    return ((one, other), (other, one))
