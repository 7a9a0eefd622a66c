"""`kept sim`: its verbs, and what a failure leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kept.cli.main import main
from kept.machine import background
from kept.machine.step import Step
from kept.sim import records
from kept.sim.plan import draw_plan, load_plan, save_plan
from kept.sim.records import SoakRecord

TICKS = "5"


@pytest.fixture
def _dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleepy(step: Step, id: str, awaiter: str) -> None:
        step.records.remove_callback(id, awaiter)

    monkeypatch.setattr(background, "drain_callback", sleepy)


@pytest.mark.parametrize("verb", [[], ["run"]])
def test_run_is_the_default(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`kept sim --seed` and `kept sim run --seed` play the same run."""
    assert main(["sim", *verb, "--seed", "2", "--ticks", TICKS]) == 0
    out = capsys.readouterr().out
    assert "seed 2, 5 ticks: everything held" in out


def test_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    """`-q` prints what names the run, its hash, and nothing else."""
    assert main(["sim", "--seed", "2", "--ticks", TICKS, "-q"]) == 0
    told = capsys.readouterr()
    assert len(told.out) == len("\n") + 64
    assert not told.err


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A run as a document."""
    assert main(["sim", "--seed", "2", "--ticks", TICKS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["seed"], document["broken"]) == (2, None)


@pytest.mark.usefixtures("_dropped")
def test_a_failure_leaves_a_plan_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What broke, the command, the smaller plan in words and in a file that breaks the same, a page."""
    out = ["--out", str(tmp_path / "out")]
    assert main(["sim", "--seed", "3", "--ticks", TICKS, *out]) == 1
    told = capsys.readouterr().out
    assert "repeat    kept sim run --seed 3 --ticks 5" in told
    assert "nothing more can go" in told
    path = tmp_path / "out" / "kept-sim-3.plan.json"
    assert f"repeat    kept sim replay {path}" in told
    assert (tmp_path / "out" / "kept-sim-3.html").is_file()
    assert load_plan(path).seed == 3
    assert main(["sim", "replay", str(path), "--no-shrink", *out]) == 1
    assert "consistent_callback_consumption_resumes_awaiter" in capsys.readouterr().out


def test_a_replay_tells_of_other_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan of another version plays, with a warning."""
    path = tmp_path / "plan.json"
    save_plan(draw_plan(2, 3).replace(code="0000"), path)
    assert main(["sim", "replay", str(path)]) == 0
    assert "made with other code" in capsys.readouterr().err


def test_shrinking_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to shrink, and that is well."""
    assert main(["sim", "shrink", "--seed", "2", "--ticks", "3"]) == 0
    assert "it does not break" in capsys.readouterr().out


def test_a_plan_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, with what is wrong."""
    assert main(["sim", "replay", "nowhere.json"]) == 2
    assert "nowhere.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["run", "--out", "{file}"], "is no directory that can be written to"),
        (["soak", "--record", "{directory}"], "is no file in a directory that is there"),
        (["soak", "--record", "{directory}/nowhere/soak.json"], "is no file in a directory"),
        (["soak", "--for", "0s"], "--for must be more than no time"),
        (["zoo", "--for", "0s"], "--for must be more than no time"),
        (["report", "--records", "{directory}/nowhere"], "there is no directory"),
    ],
)
def test_a_mistake_is_told_before_anything_is_played(
    argv: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A place where nothing can be written, a time in which nothing is played, no records."""
    file = tmp_path / "file"
    file.touch()
    places = {"file": file, "directory": tmp_path}
    try:
        code = main(["sim", *(each.format(**places) for each in argv)])
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2
    assert complaint in capsys.readouterr().err


def test_a_soak_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds played twice are compared, and the tally is a record for the report."""
    path = tmp_path / records.SOAK
    argv = ["sim", "soak", "--seeds", "2", "--ticks", TICKS, "--twice", "--record", str(path)]
    assert main([*argv, "--processes", "1"]) == 0
    assert "2 seeds, 0 differed" in capsys.readouterr().out
    record = records.load(SoakRecord, path)
    assert record is not None
    # What happened the second time is what happened the first time, and counted once.
    assert (record.runs, record.ticks, record.played_twice) == (4, 10, 2)
    assert record.command == "kept sim soak --seed 1 --seeds 2 --ticks 5 --twice"
    assert sum(record.properties.values()) > 0
    assert record.commit


def test_a_soak_ends_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    """`--for` plays seeds until the time is over, at least none."""
    argv = ["sim", "soak", "--for", "1ms", "--ticks", "2", "--processes", "1", "--json"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["runs"] <= 1


@pytest.mark.usefixtures("_dropped")
def test_a_soak_tells_of_its_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each seed that breaks comes with its command; without --no-shrink the first are shrunk too."""
    argv = [
        "sim",
        "soak",
        "--seed",
        "3",
        "--seeds",
        "2",
        "--ticks",
        TICKS,
        "--processes",
        "1",
        "--no-shrink",
    ]
    assert main([*argv, "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "kept sim run --seed 3 --ticks 5" in told
    assert "broken    seeds 3 4\n" in told
    assert not list(tmp_path.iterdir())
