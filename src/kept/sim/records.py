"""Records of what was measured: small JSON files, written by whatever measures, read by the report.

This is the one place that says what such a file holds. Names are in camelCase there. A reader skips
what it does not know, and a figure that is not there was not measured.
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import msgspec

DIRECTORY: Final = Path("reliability")
SOAK: Final = "soak.json"
EXPLORER: Final = "explorer.json"
ZOO: Final = "zoo.json"
KILLS: Final = "kills.json"
COMMIT_CHARACTERS: Final = 12

# How often each of many things happened, by name.
Counts: TypeAlias = dict[str, int]
RecordT = TypeVar("RecordT", bound="Measured")


class RecordError(ValueError):
    """A file that is no record; the text says which, and why."""


class Measured(msgspec.Struct, rename="camel", kw_only=True):
    """When something was measured (UTC), of which commit, by which command, in how many seconds."""

    date: str = ""
    commit: str = ""
    command: str = ""
    seconds: float = 0.0


class Failure(msgspec.Struct, rename="camel"):
    """A seed that broke, and what."""

    seed: int
    ticks: int
    broken: str


class Linearizability(msgspec.Struct, rename="camel", kw_only=True):
    """What the checker said of the histories: `verdicts` counts components by verdict."""

    operations: int = 0
    components: int = 0
    steps: int = 0
    verdicts: Counts = {}


class SoakRecord(Measured, kw_only=True):
    """Many seeds of the simulation. `runs` counts the second ones of seeds that were played twice;
    everything else is of the first. `ticks` is virtual seconds with faults."""

    runs: int = 0
    ticks: int = 0
    events: int = 0
    callbacks: int = 0
    commits: int = 0
    goals: int = 0
    compared: int = 0
    faults: Counts = {}
    # Requests that succeeded, by kind.
    requests: Counts = {}
    # Evaluations of each property whose guard held.
    properties: Counts = {}
    linearizability: Linearizability | None = None
    # Seeds that were played twice, and those of them whose traces differed.
    played_twice: int = 0
    mismatches: list[int] = []
    failures: list[Failure] = []


class WorldRecord(msgspec.Struct, rename="camel", kw_only=True):
    """A world of the explorer."""

    world: str
    states: int
    transitions: int
    depth: int
    exhausted: bool
    seconds: float = 0.0
    # The name of what was found to be false.
    found: str | None = None


class ExplorerRecord(Measured, kw_only=True):
    """All worlds that were explored."""

    worlds: list[WorldRecord] = []


class SeedsToFind(msgspec.Struct, rename="camel", kw_only=True):
    """In how many seeds the simulation found a bug: in `found` of `series` series."""

    series: int = 0
    found: int = 0
    median: float | None = None
    worst: int | None = None
    oracle: str = ""


class WalkToFind(msgspec.Struct, rename="camel", kw_only=True):
    """In which world the explorer found a bug, and by which property."""

    world: str
    states: int = 0
    moves: int = 0
    property: str = ""


class ZooBug(msgspec.Struct, rename="camel", kw_only=True):
    """A safeguard that was switched off, `off` says which, and what found that. Of one that was not
    `played` to the end because there was no time, what is missing says nothing."""

    name: str
    off: str
    simulation: SeedsToFind | None = None
    explorer: WalkToFind | None = None
    # Why nothing finds it, where that is known.
    why: str = ""
    played: bool = True

    @property
    def is_found(self) -> bool:
        """Whether a seed or a walk has found it."""
        by_seeds = self.simulation is not None and self.simulation.found > 0
        return by_seeds or self.explorer is not None


class ZooRecord(Measured, kw_only=True):
    """The bug zoo."""

    bugs: list[ZooBug] = []


def is_found(record: ZooRecord, name: str) -> bool:
    """Whether anything has found a bug."""
    return any(bug.name == name and bug.is_found for bug in record.bugs)


def joined(former: ZooRecord, later: ZooRecord) -> ZooRecord:
    """A record, and a later one of what it had missed; both commands are told."""
    again = {bug.name: bug for bug in later.bugs if bug.is_found or bug.played}
    bugs = [again.get(bug.name, bug) for bug in former.bugs]
    command = f"{former.command}; {later.command} --missed"
    commits = ", ".join(dict.fromkeys((former.commit, later.commit)))
    seconds = former.seconds + later.seconds
    return ZooRecord(date=later.date, commit=commits, command=command, seconds=seconds, bugs=bugs)


class KillsRecord(Measured, kw_only=True):
    """Real processes that were killed. `kills` counts by kind or named point."""

    kills: Counts = {}
    acknowledged: int = 0
    unknown_outcomes: int = 0
    operations_judged: int = 0
    operations_without_verdict: int = 0
    verdicts: Counts = {}
    workflows: int = 0
    effects: int = 0
    effects_tried_again: int = 0
    messages_told: int = 0
    logs_cut: int = 0
    failed_tests: int = 0
    lost: int = 0
    twice: int = 0


def stamp(record: Measured, *, now_ms: int, began_ms: int, command: str) -> None:
    """Notes when, of which commit and by which command a record was measured."""
    record.date = datetime.fromtimestamp(began_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    record.commit = commit()
    record.command = command
    record.seconds = round((now_ms - began_ms) / 1_000, 1)


def commit() -> str:
    """The commit of the code that runs, with a plus sign where it was changed since; "unknown" where
    it is not in a repository."""
    head = _git("rev-parse", f"--short={COMMIT_CHARACTERS}", "HEAD")
    if not head:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    try:
        run = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return run.stdout.strip()


def save(record: Measured, path: Path) -> None:
    """Writes a record, the same bytes for the same figures. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2)
    path.write_bytes(text + b"\n")


def load(kind: type[RecordT], path: Path) -> RecordT | None:
    """The record of a file; None where there is none. Raises `RecordError`, and OSError."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=kind)
        if not record.command:
            raise RecordError(f"{path} is no record, it names no command; measure again")
        return record
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: {error}") from None
