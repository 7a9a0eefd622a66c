"""From a URL to a store."""

from __future__ import annotations

import os

import pytest

from kept.errors import ConfigurationError
from kept.runtime import SystemRuntime
from kept.stores.memory import MemoryStore
from kept.stores.open import open_store
from kept.stores.sqlite import SqliteStore


def test_memory() -> None:
    """memory:// is the memory store."""
    assert isinstance(open_store("memory://", SystemRuntime()), MemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///kept.db", os.path.realpath("kept.db")),
        ("sqlite:///data/my jobs.db", os.path.realpath("data/my jobs.db")),
        ("sqlite:////var/lib/kept.db", os.path.realpath("/var/lib/kept.db")),
    ],
)
def test_sqlite(url: str, path: str) -> None:
    """Three slashes begin a relative path, four an absolute one; nothing is touched yet."""
    store = open_store(url, SystemRuntime())
    assert isinstance(store, SqliteStore)
    assert store.path == path
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "kept.db",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://kept.db",
        "memory",
        "redis://x",
    ],
)
def test_others_are_refused(url: str) -> None:
    """Any other URL is refused with what is supported."""
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        open_store(url, SystemRuntime())


def test_postgresql_is_refused_without_its_password() -> None:
    """PostgreSQL is named as not there yet, and the URL, which may hold a password, is not shown."""
    with pytest.raises(ConfigurationError, match="PostgreSQL is not supported yet") as refused:
        open_store("postgresql://user:secret@host/db", SystemRuntime())
    assert "secret" not in str(refused.value)
