"""How SQLite carries out the store's statements: each finds its rows by an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kept.contract.store_samples import jobs, queued, write
from kept.stores.sqlite import heads, load, save, scan, transaction, trees
from tests.unit.stores.support import sqlite_store

# What a dump reads, it reads whole; a function's name is not known when all of them are wanted.
SCANNED_ON_PURPOSE = {"json_each", "j", "names", "CONSTANT"}


def _statements(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in sorted(vars(module).items()):
        if isinstance(value, str) and re.match(r"(SELECT|WITH|UPDATE|DELETE) ", value):
            yield name, value


def _walks(file: sqlite3.Connection, statement: str) -> list[str]:
    """Tables that the statement reads from one end to the other, and what it sorts for itself."""
    numbered = [int(number) for number in re.findall(r"\?(\d+)", statement)]
    count = max(numbered) if numbered else statement.count("?")
    named = re.findall(r":([a-z_]+)", statement)
    values = dict.fromkeys(named, "") if named else (None,) * count
    plan = [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert plan
    return [
        step
        for step in plan
        if step.startswith("SCAN ")
        and " USING " not in step
        and step.split()[1] not in SCANNED_ON_PURPOSE
        and not step.startswith("SCAN (subquery")
    ]


@pytest.mark.parametrize(
    "module", [heads, load, save, scan, transaction, trees], ids=lambda m: m.__name__
)
async def test_no_statement_walks_a_table(tmp_path: Path, module: ModuleType) -> None:
    """No statement of the store reads a table from one end to the other, whatever it holds."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        await write(store, jobs(queued("a"), queued("b", function="f")))
        assert store._writer is not None
        statements = dict(_statements(module))
        assert statements
        walks = {name: _walks(store._writer, text) for name, text in statements.items()}
        walks.pop("_META", None)
        walks.pop("_PUT_META", None)
        # The oldest batch ids, by their number.
        walks.pop("_PRUNE", None)
        assert not {name: steps for name, steps in walks.items() if steps}


async def test_the_check_can_fail(tmp_path: Path) -> None:
    """A statement without an index is found."""
    async with sqlite_store(tmp_path / "kept.db") as store:
        assert store._writer is not None
        assert _walks(store._writer, "SELECT seq FROM promises WHERE created_at = ?")
