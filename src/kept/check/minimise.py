"""Delta debugging: a short part of a list that still shows what the whole list showed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

Item = TypeVar("Item")


async def minimise(
    items: list[Item], fails: Callable[[list[Item]], Awaitable[bool]], budget: int
) -> list[Item]:
    """Items of `items`, in order, for which `fails` still holds; all of them where it does not.

    Chunks are left out, half of the list at first, then ever smaller ones, down to single items.
    `budget` bounds the number of items tried in all.
    """
    spent = len(items)
    if not await fails(items):
        return items
    size = max(1, len(items) // 2)
    while True:
        start, shrunk = 0, False
        while start < len(items):
            shorter = items[:start] + items[start + size :]
            spent += len(shorter)
            if spent > budget:
                return items
            if shorter and await fails(shorter):
                items, shrunk = shorter, True
            else:
                start += size
        if size == 1 and not shrunk:
            return items
        size = max(1, size // 2)
