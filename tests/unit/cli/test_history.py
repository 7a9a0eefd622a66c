"""`kept history check`: verdicts as exit codes, findings as text and JSON, a page on request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Kept

HISTORIES = Path(__file__).parent.parent / "check" / "histories"


def _file(name: str) -> str:
    return str(HISTORIES / f"{name}.jsonl")


@pytest.mark.parametrize(
    ("name", "code", "verdict"),
    [
        ("protocol_wake_up", 0, "linearizable"),
        ("protocol_lost_wake_up", 1, "not linearizable"),
        ("protocol_not_in_the_model", 1, "unknown"),
        ("register_stale_read", 1, "not linearizable"),
        ("slot_double_settle", 1, "not linearizable"),
    ],
)
def test_the_verdict_is_the_exit_code(kept: Kept, name: str, code: int, verdict: str) -> None:
    """Only a linearizable history is a success; what is undecided is not passed off as one."""
    ran = kept("history", "check", "--quiet", _file(name))
    assert (ran.code, ran.out.strip()) == (code, verdict)


def test_a_violation_is_told(kept: Kept) -> None:
    """The first operation that fits nowhere is named, with what would have fitted."""
    ran = kept("history", "check", _file("protocol_lost_wake_up"))
    assert "#5 task.get of b" in ran.out
    assert "expected 'pending', got 'suspended'" in ran.out


def test_what_is_not_judged_is_told(kept: Kept) -> None:
    """An unknown verdict comes with what the model does not know."""
    assert (
        "task.nack unregistered" in kept("history", "check", _file("protocol_not_in_the_model")).out
    )


def test_programs_get_json(kept: Kept) -> None:
    """With --json, one document holds the verdict and every finding."""
    ran = kept("history", "check", "--json", _file("protocol_lost_wake_up"))
    summary = json.loads(ran.out)
    assert summary["verdict"] == "not linearizable"
    assert [finding["first"] for finding in summary["findings"]] == [5]


def test_a_page_is_written(kept: Kept, tmp_path: Path) -> None:
    """--html writes the timeline beside the verdict, and says where."""
    page = tmp_path / "page.html"
    ran = kept("history", "check", _file("protocol_wake_up"), "--html", str(page))
    assert ran.code == 0
    assert str(page) in ran.errors
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_wrong_files_are_wrong_usage(kept: Kept, tmp_path: Path) -> None:
    """A file that is missing, is no history, or names no model of ours: exit code 2 and why."""
    missing = kept("history", "check", str(tmp_path / "none"))
    assert (missing.code, "cannot be read" in missing.errors) == (2, True)
    other = tmp_path / "other"
    other.write_text("text\n", encoding="utf-8")
    assert "line 1" in kept("history", "check", str(other)).errors
    other.write_text('{"history":{"model":"chess"}}\n', encoding="utf-8")
    assert "'chess'" in kept("history", "check", str(other)).errors
    good = _file("protocol_wake_up")
    nowhere = kept("history", "check", good, "--html", str(tmp_path / "no" / "page"))
    assert (nowhere.code, "cannot be written" in nowhere.errors) == (2, True)
