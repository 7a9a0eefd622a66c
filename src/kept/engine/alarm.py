"""An alarm clock for a loop that also wants to be woken by events."""

from __future__ import annotations

import asyncio


class Alarm:
    """Waits until it is rung or until a time has passed; rings are remembered until waited for."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float | None) -> None:
        """Returns when rung, or after `seconds` (None: only when rung)."""
        if seconds is None:
            await self._rung.wait()
        elif not self._rung.is_set() and seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._rung.wait()
            except TimeoutError:
                pass
        self._rung.clear()
