"""Where processes come from, and where figures go."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from tests.crash.processes import Nursery
from tests.crash.record import Record


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks servers and workers; whatever still runs at the end is killed."""
    nursery = Nursery()
    yield nursery
    nursery.close()


# Signals to processes by descriptor, the death of children with their parent, mounts: all Linux's.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]

_figures: Final = Record()


@pytest.fixture
def record() -> Record:
    """The figures of this run of the suite, written to the file that KEPT_RECORD names."""
    return _figures


def pytest_configure(config: pytest.Config) -> None:
    """The figures of one process would overwrite those of another."""
    if os.environ.get("KEPT_RECORD") and config.getoption("numprocesses", None):
        raise pytest.UsageError("KEPT_RECORD wants all tests in one process: add -n 0")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """After each test, the figures so far are written."""
    _figures.failed_tests += report.failed
    if report.when == "teardown":
        _figures.save()
