"""Where processes come from, and where figures go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.processes import Nursery
from tests.crash.record import Record


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks servers and workers; whatever still runs at the end is killed."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def _figures() -> Record:
    return Record()


@pytest.fixture
def record(_figures: Record) -> Iterator[Record]:
    """The figures of this run of the suite, written to the file that KEPT_RECORD names."""
    yield _figures
    _figures.save()
