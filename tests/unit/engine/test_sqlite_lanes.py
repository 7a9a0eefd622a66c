"""What SQLite does for a claim does not depend on how many lanes a queue has."""

from __future__ import annotations

from pathlib import Path

import pytest

from kept.protocol import requests as r
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore
from tests.unit.engine.rig import claimed, running, waiting_claim
from tests.unit.machine.world import create

BATCH = 500
# SQLite calls after so many of its instructions.
INSTRUCTIONS = 20


async def _cost(path: Path, lanes: int, limit: int) -> tuple[int, int]:
    """The statements of a claim, and their instructions in units."""
    store = SqliteStore(str(path), SystemRuntime())
    async with running(store, watched=False, repair_ms=60_000) as engine:
        for first in range(0, 2 * lanes, BATCH):
            numbers = range(first, min(first + BATCH, 2 * lanes))
            jobs = [create(f"j{n}", queue="q", lane=f"{n * 7919 % lanes:05}") for n in numbers]
            await engine.submit_batch([(job, r.RequestHead()) for job in jobs])
        assert store._writer is not None
        # The first one finds no turn.
        await engine.submit(waiting_claim("q", wait=0, limit=limit))
        statements: list[str] = []
        units = [0]

        def count() -> int:
            units[0] += 1
            return 0

        store._writer.set_trace_callback(statements.append)
        store._writer.set_progress_handler(count, INSTRUCTIONS)
        response = await engine.submit(waiting_claim("q", wait=0, limit=limit))
        store._writer.set_progress_handler(None, 0)
        store._writer.set_trace_callback(None)
        # The lanes behind those of the first claim, in order.
        taken = [int(id[1:]) * 7919 % lanes for id in claimed(response)]
        assert taken == list(range(limit, 2 * limit))
        return len(statements), units[0]


@pytest.mark.parametrize("limit", [1, 40])
async def test_a_claim_costs_the_same_in_many_lanes_as_in_few(tmp_path: Path, limit: int) -> None:
    """As many statements, and about as many instructions, with fifty times the lanes."""
    statements, units = await _cost(tmp_path / "few.db", 100, limit)
    of_many, units_of_many = await _cost(tmp_path / "many.db", 5_000, limit)
    assert of_many == statements
    assert units_of_many <= 1.2 * units + 10
