"""The table of the outbox, in a database of the user's, and what is done to it."""

from __future__ import annotations

from typing import Final

from kept.databases.statements import Dialect, dialect_of

TABLE: Final = "kept_outbox"

_NUMBER: Final = {
    # Numbers are never used again, so an order once given stays.
    Dialect.SQLITE: "INTEGER PRIMARY KEY AUTOINCREMENT",
    Dialect.POSTGRESQL: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
}

INSERT: Final = f"""\
INSERT INTO {TABLE} (id, ordering_key, job, created_at) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING"""
LAST_WAITING: Final = f"SELECT MAX(number) FROM {TABLE} WHERE refused IS NULL"
# Of the rows up to a number, so many, and no more of them than begin within so many characters.
WAITING: Final = f"""\
SELECT number, id, ordering_key, job FROM (
  SELECT number, id, ordering_key, job,
    SUM(LENGTH(job)) OVER (ORDER BY number) - LENGTH(job) AS before
  FROM (
    SELECT number, id, ordering_key, job FROM {TABLE}
    WHERE refused IS NULL AND number > ? AND number <= ? ORDER BY number LIMIT ?
  ) AS these
) AS summed WHERE before < ? ORDER BY number"""
REFUSE: Final = f"UPDATE {TABLE} SET refused = ? WHERE number = ?"
RETRY: Final = f"UPDATE {TABLE} SET refused = NULL WHERE refused IS NOT NULL RETURNING number"
COUNTS: Final = f"""\
SELECT COUNT(*) - COUNT(refused), COUNT(refused),
MIN(CASE WHEN refused IS NULL THEN created_at END) FROM {TABLE}"""
REFUSED: Final = f"""\
SELECT id, created_at, refused FROM {TABLE} WHERE refused IS NOT NULL ORDER BY number LIMIT ?"""


def delete(count: int) -> str:
    """Removes so many rows by their numbers."""
    return f"DELETE FROM {TABLE} WHERE number IN ({', '.join('?' * count)})"


def statements(dialect: str) -> list[str]:
    """What creates the table where it is not there yet, for a migration; `dialect` is "sqlite" or
    "postgresql". Raises `ConfigurationError` for another."""
    number = _NUMBER[dialect_of(dialect)]
    return [
        f"CREATE TABLE IF NOT EXISTS {TABLE} (number {number}, id TEXT NOT NULL UNIQUE, "
        "ordering_key TEXT, job TEXT NOT NULL, created_at BIGINT NOT NULL, refused TEXT)",
        f"CREATE INDEX IF NOT EXISTS {TABLE}_waiting ON {TABLE} (number) WHERE refused IS NULL",
    ]
