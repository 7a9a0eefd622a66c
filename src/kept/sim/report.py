"""RELIABILITY.md: what was measured, and nothing else, from the records of `records.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from kept.check.properties import ALL_NAMES
from kept.sim import records
from kept.sim.records import (
    ExplorerRecord,
    KillsRecord,
    Measured,
    SoakRecord,
    WorldRecord,
    ZooBug,
    ZooRecord,
)

HEAD: Final = """\
# Reliability

What was simulated, explored and killed, and what came of it. `kept sim report` writes this page from
the records in `reliability/`; a figure that is in none of them is not here. How to repeat each
measurement, and how to read it, is in [docs/reliability.md](docs/reliability.md); what the simulation
does not cover is in [docs/design/simulation.md](docs/design/simulation.md#what-is-not-covered).
"""
NOT_MEASURED: Final = "Not measured."
NEVER: Final = "—"
# Of properties, so many that were evaluated least are named.
RAREST: Final = 5

Lines: TypeAlias = list[str]
Teller: TypeAlias = Callable[[records.RecordT], Lines]


def report(directory: Path) -> str:
    """The page. Raises `RecordError` where a record cannot be read."""
    soak = records.load(SoakRecord, directory / records.SOAK)
    explorer = records.load(ExplorerRecord, directory / records.EXPLORER)
    zoo = records.load(ZooRecord, directory / records.ZOO)
    kills = records.load(KillsRecord, directory / records.KILLS)
    parts = [
        [HEAD],
        ["## At a glance", "", *_glance(soak, explorer, zoo, kills)],
        _section("Simulation", soak, _simulation),
        _section("Determinism", soak, _determinism),
        _section("Linearizability", soak, _linearizability),
        _section("Explorer", explorer, _explorer),
        _section("The bug zoo", zoo, _zoo),
        _section("Killed processes", kills, _kills),
    ]
    return "\n\n".join("\n".join(part).strip("\n") for part in parts) + "\n"


def _section(title: str, record: records.RecordT | None, told: Teller[records.RecordT]) -> Lines:
    lines = [f"## {title}", ""]
    if record is None:
        return [*lines, NOT_MEASURED]
    return [*lines, *_provenance(record), "", *told(record)]


def _provenance(record: Measured) -> Lines:
    when = record.date or "unknown"
    return [
        f"`{record.command}`",
        "",
        f"at {when}, commit `{record.commit}`, {_time(record.seconds)}.",
    ]


def _glance(
    soak: SoakRecord | None,
    explorer: ExplorerRecord | None,
    zoo: ZooRecord | None,
    kills: KillsRecord | None,
) -> Lines:
    rows: list[tuple[str, str, str]] = []
    if soak is None:
        rows.append(("Simulation", NOT_MEASURED, NEVER))
    else:
        evaluations = sum(soak.properties.values())
        what = f"{_seeds(soak):,} seeds, {soak.events:,} events, {evaluations:,} evaluations"
        rows.append(("Simulation", what, f"{len(soak.failures):,} seeds broke"))
    if soak is None or not soak.played_twice:
        rows.append(("Determinism", NOT_MEASURED, NEVER))
    else:
        verdict = f"{len(soak.mismatches):,} traces differed"
        rows.append(("Determinism", f"{soak.played_twice:,} seeds played twice", verdict))
    if soak is None or soak.linearizability is None:
        rows.append(("Linearizability", NOT_MEASURED, NEVER))
    else:
        found = soak.linearizability
        rows.append(
            ("Linearizability", f"{found.operations:,} operations", _counts(found.verdicts))
        )
    if explorer is None:
        rows.append(("Explorer", NOT_MEASURED, NEVER))
    else:
        states = sum(world.states for world in explorer.worlds)
        wrong = sum(world.found is not None for world in explorer.worlds)
        all_of = sum(world.exhausted for world in explorer.worlds)
        what = f"{states:,} states; {all_of} of {len(explorer.worlds)} worlds exhausted"
        rows.append(("Explorer", what, f"{wrong:,} findings"))
    if zoo is None:
        rows.append(("The bug zoo", NOT_MEASURED, NEVER))
    else:
        found_bugs = sum(bug.is_found for bug in zoo.bugs)
        unplayed = sum(not bug.played and not bug.is_found for bug in zoo.bugs)
        verdict = f"{found_bugs:,} found" + (f", no time for {unplayed:,}" if unplayed else "")
        rows.append(("The bug zoo", f"{len(zoo.bugs):,} bugs", verdict))
    if kills is None:
        rows.append(("Killed processes", NOT_MEASURED, NEVER))
    else:
        what = f"{sum(kills.kills.values()):,} kills, {kills.acknowledged:,} acknowledged answers"
        rows.append(
            ("Killed processes", what, f"{kills.lost:,} lost, {kills.twice:,} applied twice")
        )
    return _table(("", "What", "Verdict"), rows)


# -- the sections


def _seeds(record: SoakRecord) -> int:
    return record.runs - record.played_twice


def _simulation(record: SoakRecord) -> Lines:
    never = [name for name in sorted(ALL_NAMES) if not record.properties.get(name)]
    rarest = sorted(record.properties.items(), key=lambda each: (each[1], each[0]))
    rarest = [each for each in rarest if each[1]][:RAREST]
    lines = _table(
        ("", ""),
        [
            ("Seeds", f"{_seeds(record):,}"),
            ("Runs, the second ones of seeds among them", f"{record.runs:,}"),
            ("Virtual time with faults", _time(record.ticks)),
            ("Events in the traces", f"{record.events:,}"),
            ("Callbacks", f"{record.callbacks:,}"),
            ("Commits", f"{record.commits:,}"),
            ("Workflows and jobs", f"{record.goals:,}"),
            ("Answers held against earlier ones", f"{record.compared:,}"),
            ("Property evaluations", f"{sum(record.properties.values()):,}"),
            ("Properties evaluated", f"{len(ALL_NAMES) - len(never)} of {len(ALL_NAMES)}"),
            ("Seeds that broke", f"{len(record.failures):,}"),
        ],
        "lr",
    )
    for failure in record.failures:
        command = f"kept sim run --seed {failure.seed} --ticks {failure.ticks}"
        lines += ["", f"- `{command}`: {_cell(failure.broken)}"]
    lines += ["", "### Faults by kind", "", *_tally(record.faults, "Fault", "Strikes")]
    lines += ["", "### Requests that succeeded by kind", ""]
    lines += _tally(record.requests, "Request", "Answers")
    lines += ["", "### Evaluations by property", ""]
    if rarest:
        named = ", ".join(f"`{name}` {count:,}" for name, count in rarest)
        lines += [f"Evaluated least: {named}."]
    if never:
        lines += ["", f"Never evaluated: {', '.join(f'`{name}`' for name in never)}."]
    lines += ["", "<details><summary>All of them</summary>", ""]
    lines += [*_tally(record.properties, "Property", "Evaluations"), "", "</details>"]
    return lines


def _determinism(record: SoakRecord) -> Lines:
    if not record.played_twice:
        return [NOT_MEASURED]
    lines = [
        f"{record.played_twice:,} seeds were played twice, by processes with other orders of hashes;",
        f"the traces of {len(record.mismatches):,} differed.",
    ]
    if record.mismatches:
        lines += ["", f"Seeds: {', '.join(map(str, record.mismatches))}."]
    return lines


def _linearizability(record: SoakRecord) -> Lines:
    found = record.linearizability
    if found is None:
        return [NOT_MEASURED]
    rows = [
        ("Operations judged", f"{found.operations:,}"),
        ("Components", f"{found.components:,}"),
        ("Steps searched", f"{found.steps:,}"),
        *(
            (f"Components {verdict}", f"{count:,}")
            for verdict, count in sorted(found.verdicts.items())
        ),
    ]
    return _table(("", ""), rows, "lr")


def _explorer(record: ExplorerRecord) -> Lines:
    rows = [_world(world) for world in record.worlds]
    states = sum(world.states for world in record.worlds)
    transitions = sum(world.transitions for world in record.worlds)
    rows.append(("**all**", f"**{states:,}**", f"**{transitions:,}**", "", "", ""))
    head = ("World", "States", "Transitions", "Depth", "Exhausted", "Found")
    return _table(head, rows, "lrrrll")


def _world(world: WorldRecord) -> tuple[str, ...]:
    return (
        world.world,
        f"{world.states:,}",
        f"{world.transitions:,}",
        f"{world.depth:,}",
        "yes" if world.exhausted else "no",
        world.found or "nothing",
    )


def _zoo(record: ZooRecord) -> Lines:
    rows = [_bug(bug) for bug in record.bugs]
    head = ("Bug", "Switched off", "Series", "Median", "Worst", "Oracle", "Explorer")
    lines = [
        "Each bug is a safeguard switched off by name. Median and worst count the seeds until the",
        "simulation found it, over the series of seeds in which it did.",
        "",
        *_table(head, rows, "llrrrll"),
    ]
    missed = [bug for bug in record.bugs if not bug.is_found]
    for bug in missed:
        what = f"was not found. {bug.why}" if bug.played else "had no time to be found."
        lines += ["", f"- `{bug.name}` {what}".rstrip()]
    return lines


def _bug(bug: ZooBug) -> tuple[str, ...]:
    seeds, walk = bug.simulation, bug.explorer
    series, median, worst, oracle = NEVER, NEVER, NEVER, NEVER
    if seeds is not None:
        series = f"{seeds.found} of {seeds.series}"
        median = f"{seeds.median:g}" if seeds.median is not None else NEVER
        worst = f"{seeds.worst:,}" if seeds.worst is not None else NEVER
        oracle = seeds.oracle or NEVER
    explored = f"{walk.property} in {walk.world}, {walk.moves} moves" if walk else NEVER
    return (bug.name, bug.off, series, median, worst, oracle, explored)


def _kills(record: KillsRecord) -> Lines:
    rows = [
        ("Acknowledged answers", f"{record.acknowledged:,}"),
        ("Of unknown outcome", f"{record.unknown_outcomes:,}"),
        ("Operations judged", f"{record.operations_judged:,}"),
        ("Operations without a verdict", f"{record.operations_without_verdict:,}"),
        *(
            (f"Components {verdict}", f"{count:,}")
            for verdict, count in sorted(record.verdicts.items())
        ),
        ("Workflows", f"{record.workflows:,}"),
        ("Effects", f"{record.effects:,}"),
        ("Effects tried again", f"{record.effects_tried_again:,}"),
        ("Messages told", f"{record.messages_told:,}"),
        ("Logs cut and opened again", f"{record.logs_cut:,}"),
        ("Tests that failed", f"{record.failed_tests:,}"),
        ("Acknowledged and lost", f"{record.lost:,}"),
        ("Applied twice", f"{record.twice:,}"),
    ]
    return [*_tally(record.kills, "Killed", "Times"), "", *_table(("", ""), rows, "lr")]


# -- tables


def _tally(counts: Mapping[str, int], name: str, number: str) -> Lines:
    rows = [(f"`{each}`", f"{count:,}") for each, count in sorted(counts.items())]
    rows.append(("**all**", f"**{sum(counts.values()):,}**"))
    return _table((name, number), rows, "lr")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> Lines:
    """A table whose columns are as wide as what is in them, so that it reads as text too."""
    cells = [[_cell(each) for each in row] for row in rows]
    sides = align.ljust(len(head), "l")
    columns = list(zip(head, *cells, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    rule = [
        "-" * (width - 1) + ":" if side == "r" else "-" * width
        for side, width in zip(sides, widths, strict=True)
    ]
    return [_row(row, widths, sides) for row in (head, rule, *cells)]


def _row(cells: Sequence[str], widths: Sequence[int], sides: str) -> str:
    padded = [
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(cells, widths, sides, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or NEVER


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"
