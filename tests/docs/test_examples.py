"""The programs in `examples/` run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*words: str) -> str:
    """What an example prints; it must end well and complain of nothing."""
    command = [sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_batching() -> None:
    """All rows are there, one by one and in batches."""
    told = run("batching/main.py", "60")
    assert re.findall(r"(.*): (\d+) rows in [0-9.]+ s", told) == [
        ("one by one", "60"),
        ("batched", "60"),
    ]
