"""The official Python SDK, in the two versions that are in the field, against `kept serve`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.e2e.official_clients import HERE, Bench, ClientContract, Kit, bench_for, shared

PROGRAMS = HERE / "python"

# The first test of a process installs the client as well.
pytestmark = pytest.mark.timeout(240)

# They differ in their ids, their timers and the promises that are settled from outside.
VERSIONS = ["0.8.1", "0.7.4"]

# What the SDK asks for, with what it takes to make a virtual environment.
NEW_ENOUGH = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))"


def _new_enough_pythons() -> Iterator[str]:
    """Python 3.12 or newer: this one, those on the path, those of pyenv."""
    candidates = [sys.executable]
    candidates += [found for minor in range(12, 16) if (found := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(pyenv.glob("3.1[2-9]*/bin/python3"))]
    for candidate in candidates:
        asked = subprocess.run([candidate, "-c", NEW_ENOUGH], capture_output=True, check=False)
        if asked.returncode == 0:
            yield candidate


@pytest.fixture(scope="session", params=VERSIONS)
def interpreter(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    unavailable: Callable[[str], NoReturn],
) -> str:
    """The Python of an environment with one version of the SDK, made once for a test run."""
    base = next(_new_enough_pythons(), None)
    if base is None:
        # Not a server that CI could start: a machine may have one Python, and it may be 3.11.
        pytest.skip("Python 3.12 or newer is not here, and the SDK needs it")
    package = f"resonate-sdk=={request.param}"
    with shared(tmp_path_factory, f"official-python-{request.param}") as (directory, empty):
        python = directory / "bin" / "python"
        make = [base, "-m", "venv", "--clear", str(directory)]
        install = [str(python), "-m", "pip", "install", "--quiet", package]
        for command in (make, install) if empty else ():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                unavailable(f"PyPI's package {package} ({done.stderr[-500:]})")
    return str(python)


@pytest.fixture
def kit(interpreter: str) -> Kit:
    return Kit(
        worker_command=[interpreter, "worker.py"],
        client_command=[interpreter, "client.py"],
        cwd=PROGRAMS,
        env={"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.fixture
def bench(kit: Kit, tmp_path: Path) -> Iterator[Bench]:
    with bench_for(kit, tmp_path) as made:
        yield made


class TestPython(ClientContract):
    """The contract, and nothing that only this client does."""
