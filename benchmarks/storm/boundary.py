"""The world outside: a database of its own in which effects count, by the keys that they name.

It knows nothing of kept. What is here once has happened once, and `tries` tells how often somebody
wanted it to happen.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

BUSY_SECONDS = 30.0
SCHEMA = """
CREATE TABLE handlings (event INTEGER PRIMARY KEY, tries INTEGER, waited_ms INTEGER, late INTEGER);
CREATE TABLE effects (event INTEGER PRIMARY KEY, tries INTEGER);
CREATE TABLE entities (entity INTEGER PRIMARY KEY, revision INTEGER, fence INTEGER, overtaken INTEGER);
CREATE TABLE lock_waits (milliseconds REAL, contended INTEGER);
"""


class Boundary:
    """One process's way to it."""

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
        self._db.execute("PRAGMA journal_mode = WAL")
        # It has to outlive killed processes, not the machine.
        self._db.execute("PRAGMA synchronous = OFF")
        if fresh:
            self._db.executescript(SCHEMA)

    def begin(self, event: int, waited_ms: int) -> int:
        """A handling of an event begins; the number of it. The first one's wait is kept."""
        (tries,) = self._db.execute(
            "INSERT INTO handlings VALUES (?, 1, ?, 0) "
            "ON CONFLICT DO UPDATE SET tries = tries + 1 RETURNING tries",
            (event, waited_ms),
        ).fetchone()
        return int(tries)

    def write(self, entity: int, revision: int, fence: int) -> None:
        """What came last under the lock stands, whatever its revision: to order them is the
        guard's part. A write under an older fence is refused, as fences want it."""
        self._db.execute(
            "INSERT INTO entities VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE SET "
            "overtaken = overtaken + (excluded.revision < revision), "
            "revision = excluded.revision, fence = excluded.fence WHERE excluded.fence >= fence",
            (entity, revision, fence),
        )

    def late(self, event: int) -> None:
        """The event's revision had been passed already."""
        self._db.execute("UPDATE handlings SET late = 1 WHERE event = ?", (event,))

    def apply(self, event: int) -> None:
        """The effect of an event, once for its key."""
        self._db.execute(
            "INSERT INTO effects VALUES (?, 1) ON CONFLICT DO UPDATE SET tries = tries + 1",
            (event,),
        )

    def waited(self, milliseconds: float, *, contended: bool) -> None:
        """Somebody got a lock after so long."""
        self._db.execute("INSERT INTO lock_waits VALUES (?, ?)", (milliseconds, contended))

    def query(self, sql: str) -> list[tuple[int, ...]]:
        return self._db.execute(sql).fetchall()

    def close(self) -> None:
        self._db.close()
