"""The ground under the tests with JavaScript clients."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping


def test_node_runs_a_program(node_environment: Mapping[str, str]) -> None:
    """Where Node is promised, a program runs on it."""
    program = ["node", "--eval", "console.log(JSON.stringify({kept: true}))"]
    done = subprocess.run(
        program, env=dict(node_environment), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == '{"kept":true}'
