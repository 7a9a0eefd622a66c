"""The official JavaScript SDK, with both of its engines, against `kept serve`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from tests.e2e.official_clients import HERE, Bench, ClientContract, Kit, bench_for, shared

PROGRAMS = HERE / "js"

# The first test of a process installs the client as well.
pytestmark = pytest.mark.timeout(240)


def npm(environment: Mapping[str, str]) -> list[str]:
    """The command npm: its program itself where it lies beside Node.

    A wheel cannot hold the symbolic link by which npm is started elsewhere.
    """
    node = shutil.which("node", path=environment["PATH"])
    assert node is not None
    program = Path(node).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [node, str(program)] if program.exists() else ["npm"]


@pytest.fixture(scope="session")
def installed(
    node_environment: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    unavailable: Callable[[str], NoReturn],
) -> Path:
    """The programs beside an installation of the SDK, made once for a test run."""
    with shared(tmp_path_factory, "official-js") as (directory, empty):
        if empty:
            shutil.copytree(PROGRAMS, directory, ignore=shutil.ignore_patterns("node_modules"))
            done = subprocess.run(
                [*npm(node_environment), "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=directory,
                env=dict(node_environment),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                shutil.rmtree(directory)
                unavailable(f"npm's package @resonatehq/sdk ({done.stderr[-500:]})")
    return directory


@pytest.fixture(params=["generator", "async"])
def kit(
    request: pytest.FixtureRequest, installed: Path, node_environment: Mapping[str, str]
) -> Kit:
    """The programs, on one of the two engines of the SDK."""
    return Kit(
        worker_command=["node", "worker.mjs"],
        client_command=["node", "client.mjs"],
        cwd=installed,
        env={"PATH": node_environment["PATH"], "KEPT_ENGINE": request.param},
    )


@pytest.fixture
def bench(kit: Kit, tmp_path: Path) -> Iterator[Bench]:
    with bench_for(kit, tmp_path) as made:
        yield made


class TestJavaScript(ClientContract):
    """The contract, and nothing that only this client does."""
