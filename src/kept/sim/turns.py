"""Whose turn it is to write on the simulated disk, in order of asking."""

from __future__ import annotations

import asyncio
from collections import deque

from kept.sim.loop import SimulatedLoop
from kept.sim.process import Process


class Turn:
    """To write; a process has it, or waits for it."""

    def __init__(self, process: Process) -> None:
        self.process = process


class Turns:
    """One process at a time. A kernel frees what a dead one held."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.holder: Turn | None = None
        self._loop = loop
        self._waiting: deque[tuple[Turn, asyncio.Future[None]]] = deque()

    async def take(self, process: Process) -> Turn:
        """Waits for the turn."""
        turn = Turn(process)
        if self.holder is None:
            self.holder = turn
            return turn
        came: asyncio.Future[None] = self._loop.create_future()
        waiting = turn, came
        self._waiting.append(waiting)
        try:
            await came
        except asyncio.CancelledError:
            # It may have come when nobody wanted it any more.
            self.give_back(turn)
            raise
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return turn

    def give_back(self, turn: Turn) -> None:
        """Gives the turn to the next one; idempotent."""
        if self.holder is not turn:
            return
        self.holder = None
        while self._waiting and self.holder is None:
            following, came = self._waiting.popleft()
            if following.process.alive and not came.done():
                # Taken before the next one runs, so that nobody comes in between.
                self.holder = following
                came.set_result(None)

    def died(self, process: Process) -> None:
        """Frees what a dead process held or waited for."""
        for waiting in [each for each in self._waiting if each[0].process is process]:
            self._waiting.remove(waiting)
        if self.holder is not None and self.holder.process is process:
            self.give_back(self.holder)
