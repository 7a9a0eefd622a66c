"""What a store reaches outside of its own code, in one place: a simulation puts its own there."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from kept.protocol.storage import Notice
from kept.runtime import Runtime
from kept.stores.sqlite.connection import check_place, identity_of, open_file
from kept.stores.sqlite.neighbours import Neighbours
from kept.stores.sqlite.turns import turns_for


class TurnsLike(Protocol):
    """Whose turn it is to write. `here` is held by the store of this process whose turn it is."""

    here: asyncio.Lock

    async def take(self) -> None:
        """Waits for the turn. Raises `StoreBusyError` when it does not come."""

    def give_back(self) -> None:
        """Lets the next one write."""


class NeighboursLike(Protocol):
    """Other processes on the same file."""

    def open(self) -> None:
        """Hears them from now on."""

    def close(self) -> None:
        """Hears no more; idempotent."""

    def tell(self, notice: Notice) -> None:
        """Says what was committed."""

    def refresh(self) -> None:
        """Looks who is there, now and then."""


# Connects to the file at a path.
Connect: TypeAlias = Callable[[str], sqlite3.Connection]
# From the directory beside the file, the runtime, and whom a neighbour's notice is for.
OpenNeighbours: TypeAlias = Callable[[str, Runtime, Callable[[Notice], None]], NeighboursLike]


def make_place(path: str) -> str:
    """Makes the directory beside the database, for locks and sockets, and answers its path. Raises
    `StoreFailedError` where no database can be, `OSError` where no directory can."""
    check_place(path)
    directory = f"{path}-run"
    os.makedirs(directory, exist_ok=True)
    return directory


class Surroundings(NamedTuple):
    """The place of the file and what tells it from another one, how it is connected to, those who
    write it in turns, and those who want to hear of it; None for nobody."""

    make_place: Callable[[str], str] = make_place
    identity: Callable[[str], tuple[int, int]] = identity_of
    connect: Connect = open_file
    turns: Callable[[str, Runtime], TurnsLike] = turns_for
    neighbours: OpenNeighbours | None = Neighbours


REAL = Surroundings()
ALONE = Surroundings(neighbours=None)
