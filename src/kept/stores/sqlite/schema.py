"""Which version of the schema a file has, and how it gets the current one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib import resources
from typing import Final

from kept.errors import StoreVersionError
from kept.stores.sqlite.connection import APPLICATION_ID

_PACKAGE: Final = "kept.stores.sqlite.migrations"


def migrations() -> list[str]:
    """The scripts that lead from an empty file to the current schema, in order."""
    files = sorted(
        (file for file in resources.files(_PACKAGE).iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return [file.read_text(encoding="utf-8") for file in files]


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the file's schema; 0 for an empty file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert isinstance(version, int)
    return version


def check_version(connection: sqlite3.Connection, path: str, newest: int) -> int:
    """The file's version. Raises `StoreVersionError` where it is newer than this program knows."""
    version = version_of(connection)
    if version > newest:
        raise StoreVersionError(
            f"opening {path}: it has schema {version}, this kept knows up to {newest}; "
            "upgrade kept to the version that wrote it, or give another path"
        )
    return version


def migrate(connection: sqlite3.Connection, path: str, scripts: Sequence[str]) -> None:
    """Brings the file to the newest schema, inside the transaction that is open."""
    version = check_version(connection, path, len(scripts))
    for script in scripts[version:]:
        for statement in statements_of(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(scripts)}")


def statements_of(script: str) -> list[str]:
    """A script's statements one by one: `executescript` would commit before it begins."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    assert not pending.strip(), f"unfinished statement: {pending[:80]}"
    return found


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """What the file's schema is, comparable: (type, name, SQL)."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
    )
    return [(kind, name, " ".join(sql.split())) for kind, name, sql in rows]
