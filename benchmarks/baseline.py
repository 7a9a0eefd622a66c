"""What to compare with: the same disk and the same SQLite, used by hand with no rules at all."""

from __future__ import annotations

import sqlite3
import time

from benchmarks.folder import fresh_folder

BATCH = 100


def bare_cycle(jobs: int) -> float:
    """Jobs/s of insert, take and finish in batches, in plain SQL with the same durability."""
    with fresh_folder() as folder:
        database = sqlite3.connect(folder / "bare.db", isolation_level=None)
        database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, state INTEGER,"
            " param TEXT, result TEXT);"
            "CREATE INDEX ready ON jobs (seq) WHERE state = 0;"
        )
        began = time.perf_counter()
        for first in range(0, jobs, BATCH):
            rows = [(f"job-{n}", 0, '{"args":[]}') for n in range(first, first + BATCH)]
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO jobs (id, state, param) VALUES (?, ?, ?)", rows)
            database.execute("COMMIT")
        for _ in range(0, jobs, BATCH):
            database.execute("BEGIN IMMEDIATE")
            due = database.execute(
                "SELECT seq FROM jobs WHERE state = 0 ORDER BY seq LIMIT ?", (BATCH,)
            ).fetchall()
            database.executemany("UPDATE jobs SET state = 1 WHERE seq = ?", due)
            database.execute("COMMIT")
            database.execute("BEGIN IMMEDIATE")
            database.executemany("UPDATE jobs SET state = 2, result = '1' WHERE seq = ?", due)
            database.execute("COMMIT")
        seconds = time.perf_counter() - began
        database.close()
    return jobs / seconds
