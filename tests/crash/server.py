"""A server in a process of its own, which a test kills and starts again on the same file and port."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from kept.runtime import SystemRuntime
from tests.crash.nursery import Order
from tests.crash.processes import Nursery, Process

START_LIMIT_S: Final = 20.0
LOOK_S: Final = 0.005
# How long a message waits whose delivery was cut off.
TRY_MS: Final = 500
RUNTIME: Final = SystemRuntime()


class ServerProcess:
    """`kept serve` over one file. `kill` is a power cut for the process: no signal handler runs."""

    def __init__(self, nursery: Nursery, database: Path, log: Path) -> None:
        self._nursery = nursery
        self._log = log
        self._port = _free_port()
        self._order = Order(
            argv=[
                *("serve", "--port", str(self._port), "--store", f"sqlite:///{database}"),
                # The receiver of the tests is on loopback.
                "--allow-private-webhooks",
            ],
            directory=str(database.parent),
            log=str(log),
            try_ms=TRY_MS,
        )
        self.process: Process | None = None
        self.starts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        """What it wrote to standard error, in all of its lives."""
        return self._log.read_text() if self._log.exists() else ""

    def begin(self, **more: object) -> Process:
        """Starts it without waiting; `more` is about its life, as an `Order` has it."""
        assert self.process is None
        self.process = self._nursery.start(msgspec.structs.replace(self._order, **more))
        self.starts += 1
        return self.process

    async def start(self, **more: object) -> None:
        """Returns once the server answers."""
        self.begin(**more)
        assert await self.is_up(), self.log[-2_000:]

    async def is_up(self) -> bool:
        """Waits until it answers, or has ended; whether it answers."""
        assert self.process is not None
        ended = asyncio.create_task(self.process.ended())
        try:
            async with asyncio.timeout(START_LIMIT_S), aiohttp.ClientSession() as session:
                while not ended.done():
                    if await self._answers(session):
                        return True
                    await RUNTIME.sleep(LOOK_S)
        finally:
            ended.cancel()
            await asyncio.wait({ended})
        return False

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        """SIGKILL, at whatever the server is doing."""
        assert self.process is not None
        await self.process.kill()
        self.process = None

    async def failed(self, **more: object) -> tuple[int, str]:
        """Starts it where it cannot live: its exit code, and what it wrote."""
        before = len(self.log)
        code = await self.begin(**more).ended()
        self.process = None
        return code, self.log[before:]

    async def died(self) -> None:
        """Waits until it has killed itself, at the point that it was started with."""
        assert self.process is not None
        code = await self.process.ended()
        assert code == -signal.SIGKILL, (code, self.log[-2_000:])
        self.process = None

    async def stop(self) -> int:
        """SIGTERM; answers the exit code."""
        assert self.process is not None
        code = await self.process.stop()
        self.process = None
        return code

    def end(self) -> None:
        """Kills it if it still runs."""
        if self.process is not None:
            self.process.end()
            self.process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
