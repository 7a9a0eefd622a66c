"""A server in a process of its own, which a test kills and starts again on the same file and port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import aiohttp

START_LIMIT_S = 20.0
ROOT = Path(__file__).parents[2]


class ServerProcess:
    """`kept serve` over one file. `kill` is a power cut for the process: no signal handler runs."""

    def __init__(self, database: Path, log: Path) -> None:
        self._database = database
        self._log = log
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self.starts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Returns once the server answers."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kept", "serve", "--port", str(self._port)),
                *("--store", f"sqlite:///{self._database}"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            )
        self.starts += 1
        async with asyncio.timeout(START_LIMIT_S), aiohttp.ClientSession() as session:
            while not await self._answers(session):
                assert self._process.returncode is None, self._log.read_text()[-2_000:]
                await asyncio.sleep(0)

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        """SIGKILL, at whatever the server is doing."""
        assert self._process is not None
        self._process.kill()
        assert await self._process.wait() == -signal.SIGKILL
        self._process = None

    async def stop(self) -> int:
        """SIGTERM; answers the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = await self._process.wait()
        self._process = None
        return code

    async def end(self) -> None:
        """Kills it if it still runs."""
        if self._process is not None:
            await self.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
