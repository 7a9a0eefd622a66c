"""`kept once run`: a command of a shell that is done once for its key."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Kept


def command(marks: Path, code: int = 0) -> list[str]:
    """A command that notes its idempotency key in a file, prints, and ends with `code`."""
    return [
        sys.executable,
        "-c",
        "import os, sys\n"
        f"open({str(marks)!r}, 'a').write(os.environ['KEPT_IDEMPOTENCY_KEY'] + chr(10))\n"
        "sys.stdout.buffer.write('gr\\u00fc\\u00dfe\\n'.encode())\n"
        f"sys.exit({code})",
    ]


def test_a_command_runs_once_for_its_key(kept: Kept, tmp_path: Path) -> None:
    """Its output is what every later call prints, whatever command it names; another key runs."""
    marks = tmp_path / "marks"
    for _ in range(2):
        ran = kept("once", "run", "report", "--", *command(marks))
        assert (ran.code, ran.out) == (0, "grüße\n")
    other = kept("once", "run", "report", "--json", "--", "/nothing/there")
    assert json.loads(other.out) == {"key": "report", "output": "grüße\n"}
    assert kept("once", "run", "report", "-q", "--", "/nothing/there").out == ""
    assert len(marks.read_text().splitlines()) == 1
    assert kept("once", "run", "other", "--", *command(marks)).code == 0
    assert len(marks.read_text().splitlines()) == 2
    assert kept("once", "list", "-q").lines == ["other", "report"]


def test_a_failure_is_not_recorded(kept: Kept, tmp_path: Path) -> None:
    """Its output and exit code are shown, and the next call runs with the same idempotency key."""
    marks = tmp_path / "marks"
    ran = kept("once", "run", "report", "--", *command(marks, code=3))
    assert (ran.code, ran.out) == (3, "grüße\n")
    assert kept("once", "list", "--pending", "-q").lines == ["report"]
    assert kept("once", "run", "report", "--", "/nothing/there").code == 127
    assert kept("once", "run", "report", "--", *command(marks)).code == 0
    first, second = marks.read_text().splitlines()
    assert first == second
    assert kept("once", "list", "--pending", "-q").lines == []


def test_output_that_cannot_be_stored_is_said(kept: Kept) -> None:
    """More than 1 MiB is refused, in words."""
    ran = kept("once", "run", "big", "--", sys.executable, "-c", "print('x' * 2_000_000)")
    assert (ran.code, ran.out) == (1, "")
    assert "1048576" in ran.errors


@pytest.mark.parametrize(
    "line",
    [
        "once run report",
        "once run report --",
        "once run report --ttl 0s -- true",
        "once run x/\0 -- a",
    ],
)
def test_wrong_input_is_a_sentence(kept: Kept, line: str) -> None:
    """And exit code 2."""
    ran = kept(*line.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.errors.splitlines()[-1].startswith("kept")
