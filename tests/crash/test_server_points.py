"""The server dies exactly at named points around commits, deliveries, checkpoints and at its start."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from kept.stores.sqlite.schema import migrate, migrations, statements_of
from tests.crash import points
from tests.crash.cycles import SEED, WANTED, cycles, limit_seconds, runs
from tests.crash.processes import Nursery
from tests.crash.record import Record
from tests.crash.server import ServerProcess
from tests.crash.server_run import ServerRun

DEATHS = 2
SHARE = 0.05
# At which pass of its point a server dies, from 1.
PASSES = {**dict.fromkeys(points.COMMITTING, (1, 40)), **dict.fromkeys(points.DELIVERING, (1, 5))}
# A log of so many pages is copied into the file, so that it happens often.
CHECKPOINT_PAGES = 100
CHECKPOINT = "during a checkpoint"
MIGRATION = "during a migration"
MAX_RUNS = 10
# In the suite, a server dies at every so manieth statement only.
STATEMENTS_APART = 1 if WANTED else 13


@pytest.mark.timeout(limit_seconds(DEATHS, SHARE, 10))
@pytest.mark.parametrize("point", [name for name in PASSES if name != CHECKPOINT])
async def test_acknowledged_work_survives_death_at_a_point(
    nursery: Nursery, tmp_path: Path, record: Record, point: str
) -> None:
    """Whatever the server was about to do when it died, before, in and after its commit: nothing that
    was acknowledged is lost, nothing is done twice, and whoever listens is told."""

    async def die(run: ServerRun) -> str:
        run.server.begin(point=point, passes=run.random.randint(*PASSES[point]))
        await run.died()
        return point

    for number, deaths in enumerate(runs(cycles(DEATHS, SHARE))):
        run = ServerRun(nursery, tmp_path / str(number), SEED + number, record)
        await run.play(die, deaths)


@pytest.mark.timeout(limit_seconds(DEATHS, SHARE, 10) + 50)
async def test_acknowledged_work_survives_death_in_a_checkpoint(
    nursery: Nursery, tmp_path: Path, record: Record
) -> None:
    """While the log is copied into the file, a server dies; the next one makes the file whole. Some of
    these deaths are in the middle: SQLite does not count as copied what is in the file."""
    halves = 0

    async def die(run: ServerRun) -> str:
        nonlocal halves
        run.server.begin(point=CHECKPOINT, checkpoint_pages=CHECKPOINT_PAGES)
        await run.died()
        halves += points.is_halfway(str(run.database))
        return CHECKPOINT

    wanted = list(runs(cycles(DEATHS, SHARE)))
    for number in range(MAX_RUNS):
        if halves and number >= len(wanted):
            return
        run = ServerRun(nursery, tmp_path / str(number), SEED + number, record)
        await run.play(die, wanted[number] if number < len(wanted) else DEATHS)
    assert halves


@pytest.mark.parametrize("version", [0, 1], ids=["new", "old"])
@pytest.mark.parametrize("point", points.STARTING)
async def test_death_while_a_file_is_made(
    nursery: Nursery, tmp_path: Path, record: Record, point: str, version: int
) -> None:
    """A server that dies while it makes its file, or brings an old one up to date, between any two
    statements of a migration too, leaves one that the next server opens, with the newest schema."""
    scripts = migrations()
    statements = sum(len(statements_of(script)) for script in scripts[version:])
    for passes in range(1, (statements if point == MIGRATION else 1) + 1, STATEMENTS_APART):
        place = tmp_path / str(passes)
        place.mkdir()
        if version:
            _make_old(place / "kept.db", scripts[:version])
        server = ServerProcess(nursery, place / "kept.db", place / "server.log")
        try:
            server.begin(point=point, passes=passes)
            await server.died()
            await server.start()
            assert await server.stop() == 0
        finally:
            server.end()
        record.kills[point] += 1
        assert points.schema_version(str(place / "kept.db")) == len(scripts)


def _make_old(path: Path, scripts: list[str]) -> None:
    """A file as an older version made it."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("BEGIN")
        migrate(database, str(path), scripts)
        database.execute("COMMIT")
    finally:
        database.close()
