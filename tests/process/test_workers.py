"""Workers as processes over one SQLite file: killed, told to stop, and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kept
from tests.unit.sdk.site import eventually

SOURCE = Path(kept.__file__).parents[1]

PROGRAM = """
import asyncio, os
from pathlib import Path
import kept

HERE = Path(__file__).parent
app = kept.App(f"sqlite:///{HERE}/kept.db", ttl=float(os.environ["TTL"]), grace=0.3)

def note(text):
    with (HERE / "log").open("a") as log:
        log.write(text + "\\n")

@app.function
async def step(label: str) -> str:
    note(label)
    while not (HERE / f"go-{label}").exists():
        await asyncio.sleep(0.01)
    return label

@app.function
async def flow(ctx: kept.Context) -> list[str]:
    return [await ctx.run(step, label) for label in ("one", "two", "three")]
"""


class Shop:
    """A directory with the program, its file and its workers."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._workers: list[subprocess.Popen[bytes]] = []
        (place / "shop.py").write_text(PROGRAM)

    def worker(self, ttl: float) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [sys.executable, "-m", "kept", "worker", "shop"],
            cwd=self.place,
            env={**os.environ, "TTL": str(ttl), "PYTHONPATH": str(SOURCE)},
        )
        self._workers.append(worker)
        return worker

    def go(self, label: str) -> None:
        (self.place / f"go-{label}").touch()

    def log(self) -> list[str]:
        log = self.place / "log"
        return log.read_text().split() if log.exists() else []

    async def logged(self, *labels: str) -> None:
        async def as_told() -> bool:
            return self.log() == list(labels)

        await eventually(as_told)

    def stop(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.stop()


def _app(shop: Shop) -> kept.App:
    return kept.App(f"sqlite:///{shop.place}/kept.db", worker=False)


async def test_killed_worker_is_replaced(shop: Shop) -> None:
    """After SIGKILL another worker goes on once the lease is over; only the step in flight is repeated."""
    async with _app(shop) as app:
        first = shop.worker(ttl=1)
        handle = await app.enqueue("flow")
        shop.go("one")
        await shop.logged("one", "two")
        first.send_signal(signal.SIGKILL)
        shop.worker(ttl=1)
        await shop.logged("one", "two", "two")
        shop.go("two")
        shop.go("three")
        assert await handle.result(20) == ["one", "two", "three"]
        assert shop.log() == ["one", "two", "two", "three"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_worker_hands_back(shop: Shop, number: signal.Signals) -> None:
    """On SIGTERM and SIGINT a worker hands back what it cannot finish, long before the lease ends."""
    async with _app(shop) as app:
        first = shop.worker(ttl=600)
        handle = await app.enqueue("flow")
        shop.go("one")
        await shop.logged("one", "two")
        first.send_signal(number)
        code = await asyncio.to_thread(first.wait, 15)
        assert code == (0 if number is signal.SIGTERM else 130)
        shop.worker(ttl=600)
        shop.go("two")
        shop.go("three")
        assert await handle.result(20) == ["one", "two", "three"]
        assert shop.log() == ["one", "two", "two", "three"]
