"""The simulated disk: turns, deaths, faults and power cuts, the same with either store on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest

from kept.check.monitor import Monitor
from kept.contract.store_samples import births, promise, write
from kept.errors import CommitUnknownError, StoreBusyError, StoreError, StoreFailedError
from kept.protocol.storage import Reads
from kept.sim import storage_faults
from kept.sim.disk import SYNCED, WRITTEN, Disk
from kept.sim.loop import SimulatedLoop
from kept.sim.mix import draw_mix
from kept.sim.process import Process
from kept.sim.recording import Recording, ServerClock
from kept.sim.runtime import Clock, OnlookersRuntime, SimulatedRuntime
from kept.sim.storage_faults import BUSY, FULL, OUTAGE
from kept.sim.strikes import Strikes
from kept.sim.trace import Trace
from kept.stores.base import Store


class World:
    """A disk and processes on it, without engines."""

    def __init__(self, store: str, **faults: float) -> None:
        self.kernel = Process("kernel")
        self.loop = SimulatedLoop(Random(1), self.kernel)
        self.clock = Clock(self.loop)
        mix = msgspec.structs.replace(
            draw_mix(1), store=store, faults=faults, commit_seconds=(0.1, 0.1)
        )
        self.told: list[str] = []
        self.lies: list[str] = []
        onlooker = OnlookersRuntime(self.loop, self.kernel, self.clock, Random(2))
        self.disk = Disk(
            self.loop,
            Random(3),
            mix,
            Trace(self.loop.time),
            onlooker,
            Monitor(),
            lambda process, why: self.kill(process),
            Strikes({}),
            Recording(self.loop, 1, ServerClock(lambda: 0, [self.clock])),
            lambda oracle, why: self.lies.append(why),
        )

    def kill(self, process: Process) -> None:
        process.kill()
        self.loop.remove_process(process)

    async def process(self, name: str) -> tuple[Process, Store]:
        """A process with the store open."""
        process = Process(name)
        self.loop.add_process(process)
        runtime = SimulatedRuntime(self.loop, process, self.clock, Random(name))
        store = self.disk.store(process, runtime)
        store.on_notice = lambda notice: self.told.append(name)
        # Opening is not what is tested.
        faulty, self.disk.faulty = self.disk.faulty, False
        await self.within(process, store.open())
        self.disk.faulty = faulty
        return process, store

    def within(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Does something in a process."""
        return process.spawn(self.loop, work, "test")

    async def ids(self) -> set[str]:
        """What is stored."""
        return set((await (await self.disk.medium.keeper()).dump("default")).promises)

    def play(self, act: Callable[[World], Awaitable[None]]) -> None:
        """From the first instant to the end."""
        try:
            self.loop.run_until_complete(act(self))
        finally:
            self.kernel.kill()
            self.disk.close()
            self.loop.close()


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which store is on the disk."""
    name: str = request.param
    return name


@asynccontextmanager
async def refused(error: type[StoreError]) -> AsyncIterator[None]:
    """What is done in here fails so."""
    with pytest.raises(error):
        yield


def test_others_see_a_commit_and_hear_of_it(kind: str) -> None:
    """What one process commits another one finds, and is told."""

    async def act(world: World) -> None:
        one, store = await world.process("one")
        _, other = await world.process("other")
        await world.within(one, write(store, births(promise("p"))))
        await world.loop.pause(1.0)
        assert [found.id for found in await other.scan_promises("default", None, 9, {})] == ["p"]
        assert world.told[:1] == ["other"]

    World(kind).play(act)


def test_death_undoes_what_was_not_committed_and_frees_the_turn(kind: str) -> None:
    """The next writer finds nothing of a transaction that died with its process."""

    async def act(world: World) -> None:
        one, store = await world.process("one")
        other, other_store = await world.process("other")
        world.within(one, write(store, births(promise("lost"))))
        await world.loop.pause(0.05)
        assert not world.disk.quiet
        waiting = world.within(other, write(other_store, births(promise("kept"))))
        await world.loop.pause(0.01)
        world.kill(one)
        await waiting
        assert await world.ids() == {"kept"}
        assert world.disk.quiet

    World(kind).play(act)


@pytest.mark.parametrize(
    ("condition", "error"),
    [(OUTAGE, StoreFailedError), (FULL, StoreFailedError), (BUSY, StoreBusyError)],
)
def test_a_disk_in_no_condition_to_write(
    kind: str, condition: str, error: type[StoreError]
) -> None:
    """Writing fails while it lasts, with nothing applied, and goes on afterwards."""

    async def act(world: World) -> None:
        one, store = await world.process("one")
        world.disk.faults.begin(condition, 60.0)
        async with refused(error):
            await world.within(one, write(store, births(promise("never"))))
        await world.loop.pause(60.0)
        await world.within(one, write(store, births(promise("p"))))
        assert await world.ids() == {"p"}

    World(kind).play(act)


@pytest.mark.parametrize("unreadable", [False, True])
def test_an_unclear_commit_is_told_as_it_is(
    kind: str, monkeypatch: pytest.MonkeyPatch, *, unreadable: bool
) -> None:
    """A commit that reports an error is looked up; where that cannot be done, it is unknown."""
    monkeypatch.setattr(storage_faults, "SHARE_OF_UNREADABLE", 1.0 if unreadable else 0.0)
    monkeypatch.setattr(storage_faults, "UNREADABLE_SECONDS", (7.0, 7.0))

    async def act(world: World) -> None:
        one, store = await world.process("one")
        seen = set()
        for number in range(12):
            id = f"p{number}"
            try:
                await world.within(one, write(store, births(promise(id))))
                outcome = "committed"
            except CommitUnknownError:
                outcome = "unknown"
            except StoreFailedError:
                outcome = "failed"
            await world.loop.pause(8.0)
            happened = id in await world.ids()
            seen.add((outcome, happened))
        unknown = {("unknown", True), ("unknown", False)}
        assert seen == (unknown if unreadable else {("committed", True), ("failed", False)})
        assert world.lies == []

    World(kind, commit_unclear=1.0).play(act)


@pytest.mark.parametrize("point", [WRITTEN, SYNCED])
def test_the_power_is_cut_in_a_commit(kind: str, point: str) -> None:
    """A commit that is being written is lost, one that is synced stays; both answer nobody, and
    what was acknowledged before stays."""

    async def act(world: World) -> None:
        one, store = await world.process("one")
        other, _ = await world.process("other")
        await world.within(one, write(store, births(promise("before"))))
        commit = world.disk.next_commit(point)
        writing = world.within(one, write(store, births(promise("p"))))
        await commit
        world.disk.cut_power(world.kill)
        assert not one.alive
        assert not other.alive
        assert not writing.done()
        assert await world.ids() == ({"before"} if point == WRITTEN else {"before", "p"})
        again, store = await world.process("again")
        await world.within(again, write(store, births(promise("after"))))

    World(kind).play(act)


def test_what_is_reported_before_its_sync_is_lost(kind: str) -> None:
    """Of commits that are synced later than reported, a power cut takes those that were not yet."""

    async def act(world: World) -> None:
        one, store = await world.process("one")
        world.disk.sync_lag = 10.0
        for id in ("old", "p", "q"):
            await world.within(one, write(store, births(promise(id))))
            await world.loop.pause(11.0 if id == "old" else 1.0)
        assert await world.ids() == {"old", "p", "q"}
        clock = world.disk.medium.clock
        world.disk.cut_power(world.kill)
        assert await world.ids() == {"old"}
        assert world.disk.medium.clock <= clock
        again, store = await world.process("again")
        await world.within(again, write(store, births(promise("p"))))
        async with store.transaction() as transaction:
            loaded = await transaction.load("default", Reads(objects={"p", "q"}), 0)
        assert loaded.promises["p"] is not None
        assert loaded.promises["q"] is None

    World(kind).play(act)
