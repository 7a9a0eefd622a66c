"""Workers are killed, frozen beyond their leases, and killed at named points: every workflow comes to
its result, and every effect is there once under its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import points
from tests.crash.cycles import SEED, WANTED, cycles, limit_seconds, runs
from tests.crash.processes import Nursery
from tests.crash.record import Record
from tests.crash.worker_run import WorkerRun

STRIKES = 5
SECONDS_PER_STRIKE = 15
# How many more effects there are before the next strike.
EFFECTS_BETWEEN = (1, 30)
SHARE_OF_ZOMBIES = 0.2
SHARE_OF_SERVERS = 0.15

DEATHS = 1
SHARE_OF_POINT = 0.03
# At which pass of its point a worker dies, from 1.
WORKING_PASSES = (1, 6)
COMMITTING_PASSES = (1, 30)
COMMITTING = [name for name in points.COMMITTING if name != "during a checkpoint"]
SOME = ["before commit", "after commit"]


async def _strike(run: WorkerRun) -> str:
    await run.grown(run.random.randint(*EFFECTS_BETWEEN))
    drawn = run.random.random()
    if drawn < SHARE_OF_ZOMBIES:
        await run.freeze_one()
        return "zombie worker"
    if run.served and drawn < SHARE_OF_ZOMBIES + SHARE_OF_SERVERS:
        await run.server.kill()
        await run.server.start()
        return "server under workers"
    await run.kill_one()
    return "worker" if run.served else "worker with its own engine"


@pytest.mark.timeout(limit_seconds(STRIKES, 1, SECONDS_PER_STRIKE))
@pytest.mark.parametrize("on", ["server", "file"])
async def test_workflows_survive_kills_of_workers(
    nursery: Nursery, tmp_path: Path, record: Record, on: str
) -> None:
    """Three workers on a server, or on one SQLite file, are killed and frozen at random while workflows
    with steps, calls, sleeps, fan-out and children run."""
    for number, strikes in enumerate(runs(cycles(STRIKES))):
        place, served = tmp_path / str(number), on == "server"
        run = WorkerRun(nursery, place, SEED + number, record, served=served)
        await run.play(_strike, strikes)


@pytest.mark.timeout(limit_seconds(DEATHS, SHARE_OF_POINT, SECONDS_PER_STRIKE))
@pytest.mark.parametrize("point", points.WORKING)
async def test_workflows_survive_death_of_a_worker_at_a_point(
    nursery: Nursery, tmp_path: Path, record: Record, point: str
) -> None:
    """Between a step's effect and its record, between the record and what the code does next, around
    suspensions and fulfilments: the work goes on elsewhere, and no effect is lost or had under two keys."""
    await _at_point(nursery, tmp_path, record, point, WORKING_PASSES, served=True)


@pytest.mark.timeout(limit_seconds(DEATHS, SHARE_OF_POINT, SECONDS_PER_STRIKE))
@pytest.mark.parametrize("point", SOME if not WANTED else COMMITTING)
async def test_workflows_survive_death_around_a_commit(
    nursery: Nursery, tmp_path: Path, record: Record, point: str
) -> None:
    """Around the commits of a worker with an engine of its own, on a file that other workers use."""
    await _at_point(nursery, tmp_path, record, point, COMMITTING_PASSES, served=False)


async def _at_point(
    nursery: Nursery,
    place: Path,
    record: Record,
    point: str,
    passes: tuple[int, int],
    *,
    served: bool,
) -> None:
    async def die(run: WorkerRun) -> str:
        await run.die_at(point, run.random.randint(*passes))
        return point if served else f"{point}, worker"

    for number, deaths in enumerate(runs(cycles(DEATHS, SHARE_OF_POINT))):
        run = WorkerRun(nursery, place / str(number), SEED + number, record, served=served)
        await run.play(die, deaths)
