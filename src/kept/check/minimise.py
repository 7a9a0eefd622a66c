"""Delta debugging: a short part of a list that still shows what the whole list showed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
# Yields lists to try, is sent whether each still fails, and returns the shortest that did.
Tries: TypeAlias = Generator[list[Item], bool, list[Item]]


def shorter_lists(items: list[Item]) -> Tries[Item]:
    """Tries ever shorter parts of `items`, in order, which fails as a whole.

    Chunks are left out, half of the list at first, then ever smaller ones, down to single items. The
    empty list is not tried.
    """
    size = max(1, len(items) // 2)
    while True:
        start, shrunk = 0, False
        while start < len(items):
            shorter = items[:start] + items[start + size :]
            if shorter and (yield shorter):
                items, shrunk = shorter, True
            else:
                start += size
        if size == 1 and not shrunk:
            return items
        size = max(1, size // 2)


async def minimise(
    items: list[Item], fails: Callable[[list[Item]], Awaitable[bool]], budget: int
) -> list[Item]:
    """Items of `items`, in order, for which `fails` still holds; all of them where it does not.

    `budget` bounds the number of items tried in all.
    """
    spent = len(items)
    if not await fails(items):
        return items
    tries, answer = shorter_lists(items), None
    while True:
        try:
            shorter = tries.send(answer) if answer is not None else next(tries)
        except StopIteration as end:
            found: list[Item] = end.value
            return found
        spent += len(shorter)
        if spent > budget:
            return items
        answer = await fails(shorter)
        if answer:
            items = shorter
