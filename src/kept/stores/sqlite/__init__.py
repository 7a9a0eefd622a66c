"""The store in a SQLite file, which several processes may use at once."""

from kept.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
