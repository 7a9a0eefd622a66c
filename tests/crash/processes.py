"""Processes that tests kill, stop and start again; none outlives the test that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from tests.crash.nursery import Done, Order

ROOT: Final = Path(__file__).parents[2]
# What a process may take to end after it was told to.
END_LIMIT_S: Final = 30.0


class Nursery:
    """Where processes come from: forked from one that has imported all they need."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._decode = msgspec.json.Decoder(Done).decode

    def start(self, order: Order) -> Process:
        """Starts `kept` with arguments; returns as soon as it is born."""
        return Process(self, self.ask(order))

    def ask(self, order: Order) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        return self._decode(self._process.stdout.readline()).number

    def close(self) -> None:
        """Ends it and whatever still runs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(END_LIMIT_S)
        self._process.stdout.close()


class Process:
    """One of them, from its start to its end."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        # None while it runs; then its exit code, or minus the number of the signal that ended it.
        self.code: int | None = None
        self._nursery = nursery
        self._descriptor = os.pidfd_open(pid)

    async def ended(self) -> int:
        """Waits until it has ended by itself or otherwise; its code."""
        if self.code is None:
            loop = asyncio.get_running_loop()
            over = asyncio.Event()
            loop.add_reader(self._descriptor, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(self._descriptor)
            self._reap()
        assert self.code is not None
        return self.code

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it still runs."""
        if self.code is None:
            signal.pidfd_send_signal(self._descriptor, number)

    async def kill(self) -> None:
        """SIGKILL, at whatever it is doing."""
        self.send(signal.SIGKILL)
        assert await self.ended() == -signal.SIGKILL

    async def stop(self) -> int:
        """SIGTERM; answers the exit code."""
        self.send(signal.SIGTERM)
        async with asyncio.timeout(END_LIMIT_S):
            return await self.ended()

    def end(self) -> None:
        """Kills it if it still runs, and waits for that without a loop."""
        if self.code is None:
            self.send(signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        if self.code is None:
            self.code = self._nursery.ask(Order(wait=self.pid))
            os.close(self._descriptor)
