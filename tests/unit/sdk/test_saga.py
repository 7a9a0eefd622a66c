"""What ends a saga without undoing it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import kept
from kept.sdk.saga import Saga


class Undoing:
    """Stands for a context: notes what is undone."""

    def __init__(self) -> None:
        self.undone: list[str] = []

    async def run(self, label: str) -> None:
        self.undone.append(label)


async def test_code_that_leaves_memory_undoes_nothing() -> None:
    """Its coroutine is closed where it stands, and goes on later from its records."""
    undoing = Undoing()

    async def code() -> None:
        async with Saga(cast(kept.Context, undoing)) as saga:
            saga.undo(cast(Any, "effect"))
            await asyncio.Event().wait()

    running = code()
    running.send(None)
    running.close()
    assert undoing.undone == []
