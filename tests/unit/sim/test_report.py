"""RELIABILITY.md follows from the records, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kept.cli.main import main
from kept.sim import records
from kept.sim.records import (
    ExplorerRecord,
    Failure,
    KillsRecord,
    Linearizability,
    RecordError,
    SeedsToFind,
    SoakRecord,
    WalkToFind,
    WorldRecord,
    ZooBug,
    ZooRecord,
)
from kept.sim.report import NOT_MEASURED, report

ROOT = Path(__file__).parents[3]
SECTIONS = (
    "Simulation",
    "Determinism",
    "Linearizability",
    "Explorer",
    "The bug zoo",
    "Killed processes",
)


def soak() -> SoakRecord:
    return SoakRecord(
        date="2026-01-02T03:04:05Z",
        commit="abc",
        command="kept sim soak --seeds 7",
        runs=7,
        events=12_345,
        faults={"lost": 3, "stall": 4},
        requests={"promise.get": 9},
        properties={"well_formed_task_resumes_unique": 77},
        linearizability=Linearizability(operations=5_000, verdicts={"linearizable": 40}),
        played_twice=3,
        mismatches=[6],
        failures=[Failure(4, 150, "Broken: a | b\nc")],
    )


def test_the_report_is_what_the_records_make() -> None:
    """The page that is in the repository is the one that its records make."""
    assert (ROOT / "RELIABILITY.md").read_text() == report(ROOT / records.DIRECTORY)


def test_nothing_measured_is_said_so(tmp_path: Path) -> None:
    """Without records each section says so, and no figure stands there."""
    text = report(tmp_path)
    assert text.count(NOT_MEASURED) == 2 * len(SECTIONS)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")][1:] == [*SECTIONS]


def test_figures_are_those_of_the_records(tmp_path: Path) -> None:
    """Each figure of a record is in the page, with date, commit and command."""
    records.save(soak(), tmp_path / records.SOAK)
    text = report(tmp_path)
    for part in ("12,345", "abc", "2026-01-02T03:04:05Z", "`kept sim soak --seeds 7`", "5,000"):
        assert part in text
    assert "`kept sim run --seed 4 --ticks 150`: Broken: a \\| b c" in text
    assert "the traces of 1 differed" in text
    assert "| `lost`  |       3 |" in text


def test_tables_have_the_same_width_everywhere(tmp_path: Path) -> None:
    """Whoever reads the page as text sees columns."""
    records.save(soak(), tmp_path / records.SOAK)
    records.save(
        ZooRecord(
            command="kept sim zoo",
            bugs=[
                ZooBug(
                    name="a",
                    off="no fence",
                    simulation=SeedsToFind(series=5, found=4, median=2.5, worst=11, oracle="one"),
                ),
                ZooBug(name="b", off="x", explorer=WalkToFind(world="job", moves=5, property="p")),
                ZooBug(name="c", off="y", simulation=SeedsToFind(series=5), why="Nobody looks."),
            ],
        ),
        tmp_path / records.ZOO,
    )
    worlds = [WorldRecord(world="job", states=10, transitions=20, depth=3, exhausted=True)]
    records.save(ExplorerRecord(command="kept check", worlds=worlds), tmp_path / records.EXPLORER)
    kills = KillsRecord(
        command="pytest tests/crash", kills={"before commit": 12}, acknowledged=99, lost=0
    )
    records.save(kills, tmp_path / records.KILLS)
    text = report(tmp_path)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) > 7
    for table in tables:
        assert len({len(line) for line in table.splitlines()}) == 1, table
    assert "| 4 of 5 |    2.5 |    11 |" in text
    assert "`c` was not found. Nobody looks." in text
    assert "3 bugs" in text
    assert "2 found" in text
    assert "12 kills, 99 acknowledged answers" in text
    assert NOT_MEASURED not in text


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (soak(), records.SOAK),
        (ExplorerRecord(command="kept check"), records.EXPLORER),
        (ZooRecord(command="kept sim zoo", bugs=[ZooBug(name="a", off="b")]), records.ZOO),
        (KillsRecord(command="pytest tests/crash", kills={"server": 3}), records.KILLS),
    ],
)
def test_a_record_is_written_and_read(record: records.Measured, name: str, tmp_path: Path) -> None:
    """What is read is what was written, and the same figures are the same bytes."""
    path = tmp_path / "deeper" / name
    records.save(record, path)
    first = path.read_bytes()
    loaded = records.load(type(record), path)
    assert loaded == record
    assert loaded is not None
    records.save(loaded, path)
    assert path.read_bytes() == first


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    path = tmp_path / records.SOAK
    for text in ("{", "{}", '{"runs": 5}'):
        path.write_text(text)
        with pytest.raises(RecordError, match=r"soak\.json"):
            report(tmp_path)


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`kept sim report` writes the page; with --check it says whether it is the same."""
    records.save(soak(), tmp_path / records.SOAK)
    page = tmp_path / "page.md"
    argv = ["sim", "report", "--records", str(tmp_path), "--out", str(page)]
    assert main([*argv, "--check"]) == 1
    assert main(argv) == 0
    assert page.read_text() == report(tmp_path)
    assert main([*argv, "--check"]) == 0
    page.write_text("something else")
    assert main([*argv, "--check"]) == 1
    assert "kept sim report" in capsys.readouterr().err


def test_a_record_of_the_zoo_goes_on() -> None:
    """What it had missed is what the later one says of it, also where that had no time."""

    def bug(name: str, found: int | None, *, played: bool = True) -> records.ZooBug:
        seeds = None if found is None else records.SeedsToFind(series=1, found=found)
        return records.ZooBug(name=name, off="", simulation=seeds, played=played)

    former = records.ZooRecord(
        commit="one",
        command="kept sim zoo",
        seconds=2.0,
        bugs=[
            bug("found", 1),
            bug("missed", 0),
            bug("late", 0),
            bug("unplayed", None, played=False),
        ],
    )
    later = records.ZooRecord(
        date="now",
        commit="two",
        command="kept sim zoo --seeds 9",
        seconds=3.0,
        bugs=[bug("missed", 1), bug("late", None, played=False), bug("unplayed", 0)],
    )
    both = records.joined(former, later)
    assert [(each.name, each.is_found, each.played) for each in both.bugs] == [
        ("found", True, True),
        ("missed", True, True),
        ("late", False, True),
        ("unplayed", False, True),
    ]
    assert both.command == "kept sim zoo; kept sim zoo --seeds 9 --missed"
    assert (both.commit, both.seconds, both.date) == ("one, two", 5.0, "now")
    assert records.is_found(both, "missed")
    assert not records.is_found(both, "late")
