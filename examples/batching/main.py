"""Ten thousand rows from ten thousand workflows, inserted one by one and in batches.

python examples/batching/main.py [ROWS]
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import kept

ROWS = 10_000


def program(folder: Path) -> tuple[kept.App, dict[str, kept.Function[..., Any]]]:
    """An app with two workflows that differ in nothing but the step."""
    app = kept.App(f"sqlite:///{folder / 'kept.db'}", concurrency=1_000)
    path = folder / "shop.db"
    with closing(sqlite3.connect(path)) as shop:
        shop.execute("CREATE TABLE orders (way TEXT, number INTEGER, PRIMARY KEY (way, number))")

    def insert(way: str, numbers: list[int]) -> None:
        # The key makes a repetition harmless: a step may run again after a crash.
        with closing(sqlite3.connect(path, timeout=60)) as shop, shop:
            rows = [(way, number) for number in numbers]
            shop.executemany("INSERT OR IGNORE INTO orders VALUES (?, ?)", rows)

    @app.function
    def insert_one(number: int) -> None:
        insert("one by one", [number])

    @app.batched(max_size=1_000)
    def insert_many(numbers: list[int]) -> None:
        insert("batched", numbers)

    @app.function
    async def order(ctx: kept.Context, number: int) -> int:
        await ctx.run(insert_one, number)
        return number

    @app.function
    async def order_in_batches(ctx: kept.Context, number: int) -> int:
        await ctx.run(insert_many, number)
        return number

    return app, {"one by one": order, "batched": order_in_batches}


def inserted(folder: Path, way: str) -> int:
    """How many rows are there."""
    query = "SELECT count(*) FROM orders WHERE way = ?"
    with closing(sqlite3.connect(folder / "shop.db")) as shop:
        (count,) = shop.execute(query, (way,)).fetchone()
    return int(count)


async def main(rows: int, say: Callable[[str], object] = print) -> None:
    """Runs both, and says how long each took."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        app, ways = program(folder)
        async with app:
            for way, flow in ways.items():
                began = time.perf_counter()
                handles = await app.start_many(flow, [(number,) for number in range(rows)])
                for handle in handles:
                    await handle
                seconds = time.perf_counter() - began
                say(f"{way}: {inserted(folder, way):,} rows in {seconds:.1f} s")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
