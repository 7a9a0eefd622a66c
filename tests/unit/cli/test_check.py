"""`kept check`."""

from __future__ import annotations

import json

import pytest

from kept.cli.main import main
from kept.machine.dispatch import HANDLERS
from kept.protocol.requests import TaskAcquire
from kept.protocol.responses import Response


def test_each_world_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """States, transitions, depth, whether that was all, speed, and what was found."""
    assert main(["check", "--depth", "3", "--world", "timer", "--world", "job"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["timer", "job"]
    for row in rows:
        assert int(row[1]) > 1
        assert int(row[2]) > 1
        assert row[3:5] == ["3", "no"]
        assert row[6] == "nothing"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One document for each world."""
    assert main(["check", "--depth", "2", "--processes", "1", "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(documents) >= 5
    assert {"call", "promises", "timer", "job"} <= {each["world"] for each in documents}
    for each in documents:
        assert each["states"] > 1
        assert each["exhausted"] is False
        assert each["found"] is None


def test_processes_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Several worlds at once give the same lines in the same order, but for the speed."""
    names = ["job", "timer", "call"]
    worlds = [word for name in names for word in ("--world", name)]
    lines = []
    for processes in ("1", "2"):
        assert main(["check", "--depth", "5", "--processes", processes, *worlds]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        lines.append([[*row[:5], row[6]] for row in rows])
    assert [row[0] for row in lines[0]] == names
    assert lines[0] == lines[1]


def test_a_finding_is_told_step_by_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is false, and the shortest way there, a move a line; the exit code says so too."""

    def acquire(*_: object) -> Response:
        raise ValueError("broken")

    monkeypatch.setitem(HANDLERS, TaskAcquire, acquire)
    assert main(["check", "--world", "call"]) == 1
    out = capsys.readouterr().out
    assert "the machine does not fail" in out
    assert "ValueError: broken" in out
    assert "1. the client creates root: 200" in out
    assert "4. w1 acquires root" in out
    assert main(["check", "--world", "call", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["found"]
    assert found["trace"][-1] == "w1 acquires root"


def test_the_worlds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` tells what there is to explore, and explores nothing."""
    assert main(["check", "--list"]) == 0
    assert "job\ta job with two attempts" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["--world", "nowhere"],
        ["--depth", "0"],
        ["--depth", "x"],
        ["--record", "nowhere/explorer.json"],
    ],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown world, a depth that is none, a record that cannot be written: what is wrong is said."""
    with pytest.raises(SystemExit) as stopped:
        main(["check", *argv])
    assert stopped.value.code == 2
    assert argv[1] in capsys.readouterr().err
