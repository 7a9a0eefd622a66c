"""From a URL to a store."""

from __future__ import annotations

from typing import Final

from kept.errors import ConfigurationError
from kept.runtime import Runtime
from kept.stores.base import Store

SUPPORTED: Final = "memory://, sqlite:///relative/path or sqlite:////absolute/path"


def open_store(url: str, runtime: Runtime) -> Store:
    """The store that `url` names, not yet opened. Raises `ConfigurationError` for any other URL."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "memory" and not rest:
        from kept.stores.memory import MemoryStore

        return MemoryStore(runtime)
    if separator and scheme == "sqlite":
        if len(rest) < 2 or not rest.startswith("/"):
            raise ConfigurationError(
                f"store {url!r}: a path follows the third slash, as in sqlite:///kept.db or "
                "sqlite:////var/lib/kept.db"
            )
        from kept.stores.sqlite import SqliteStore

        return SqliteStore(rest[1:], runtime)
    if scheme in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"store {scheme}://…: PostgreSQL is not supported yet; use {SUPPORTED}"
        )
    raise ConfigurationError(f"store {url!r}: use {SUPPORTED}")
