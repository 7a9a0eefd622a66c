"""What was acknowledged survives SIGKILL of the server, and nothing is applied twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.cycles import SEED, cycles, limit_seconds, runs
from tests.crash.processes import Nursery
from tests.crash.record import Record
from tests.crash.server_run import ServerRun

KILLS = 6
# How many more answers the clients get before the next kill.
ANSWERS_BETWEEN_KILLS = (1, 200)


async def _kill(run: ServerRun) -> str:
    if run.server.process is None:
        await run.server.start()
    await run.answered(run.random.randint(*ANSWERS_BETWEEN_KILLS))
    await run.server.kill()
    await run.server.start()
    return "server"


@pytest.mark.timeout(limit_seconds(KILLS, 1, 10))
async def test_acknowledged_work_survives_kills_of_the_server(
    nursery: Nursery, tmp_path: Path, record: Record
) -> None:
    """Eight clients create, settle, listen, claim and fulfil while the server is killed at random
    moments: every acknowledged create, settle and fulfil is stored as it was answered, each promise has
    one settlement, each version of a task one holder, listeners are told, the store keeps every named
    property, and one order of all operations explains every answer."""
    for number, kills in enumerate(runs(cycles(KILLS))):
        run = ServerRun(nursery, tmp_path / str(number), SEED + number, record)
        await run.play(_kill, kills)
        assert min(len(run.ledger.created), len(run.ledger.settled)) >= kills
        assert len(run.ledger.fulfilled) >= kills
