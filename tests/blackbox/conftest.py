"""A server for the tests of a module, on each store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.server import Server

STORES = ("memory", "sqlite")


def _store(kind: str, place: Path) -> str:
    return "memory://" if kind == "memory" else f"sqlite:///{place}/kept.db"


@pytest.fixture(scope="module", params=STORES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One whose clock the tests move."""
    place = tmp_path_factory.mktemp("server")
    running = Server(place, _store(request.param, place))
    yield running
    running.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One on a file, on the real clock, with all its background."""
    place = tmp_path_factory.mktemp("live")
    running = Server(place, _store("sqlite", place), clock=False)
    yield running
    running.close()
