"""`kept sim zoo`: every safeguard switched off in turn, and in how many seeds that is noticed.

kept sim zoo                                     all bugs; takes an hour and more
kept sim zoo --bug fulfil-unfenced --series 2    one of them, in two series of seeds

Prints a table, and writes reliability/zoo.json when all bugs were played.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.output import Output
from kept.runtime import SystemRuntime

if TYPE_CHECKING:  # help is shown without loading the whole system
    from kept.sim.zoo.bug import Bug
    from kept.sim.zoo.runner import Result, Verdict

DEFAULT_SERIES: Final = 5
DEFAULT_SEEDS: Final = 200
RECORD: Final = Path("reliability/zoo.json")
_HEADER: Final = ("BUG", "FLOOR", "SERIES", "MEDIAN", "WORST", "BY", "WORLD", "STATES", "BY")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that only `zoo` has; `--seeds`, `--ticks` and `--processes` it shares."""
    parser.add_argument("--bug", action="append", metavar="NAME", help="zoo: this one (all)")
    parser.add_argument(
        "--series",
        type=int,
        default=DEFAULT_SERIES,
        help=f"zoo: series of seeds ({DEFAULT_SERIES})",
    )


def run(arguments: argparse.Namespace, seeds: int | None, ticks: int | None) -> int:
    """Plays the zoo. Ends with 1 when a bug is not found, or something is without a bug."""
    from kept.sim.zoo.play import DEFAULT_TICKS
    from kept.sim.zoo.runner import CONTROL, run_zoo, verdicts

    runtime = SystemRuntime()
    began_ms = runtime.now_ms()
    output = Output(began_ms, json=arguments.json, quiet=arguments.quiet)
    bugs = _chosen(arguments.bug)
    results: list[Result] = []
    for result in run_zoo(
        bugs,
        series=arguments.series,
        seeds=seeds or DEFAULT_SEEDS,
        ticks=ticks or DEFAULT_TICKS,
        processes=arguments.processes,
    ):
        results.append(result)
        if sys.stderr.isatty():
            output.note(f"{result.job.name}: {len(results)} jobs done")
    found = verdicts(bugs, results)
    false = [each.seen for each in results if each.job.name == CONTROL and each.seen]
    document = _document(found, began_ms, runtime.now_ms(), _command(arguments, seeds, ticks))
    if arguments.json:
        output.document(document)
    else:
        output.rows(_HEADER, [_row(verdict) for verdict in found])
        for verdict in found:
            if not verdict.found:
                output.line(f"not found: {verdict.name}: {verdict.why or 'nobody knows why'}")
        for seen in false:
            output.line(f"found without a bug, in seed {seen.seed}: {seen.message}")
    if not arguments.bug:
        _save(document)
    return EXIT_REFUSED if false or not all(each.found for each in found) else EXIT_OK


def _chosen(names: list[str] | None) -> list[Bug]:
    from kept.sim.zoo.registry import BY_NAME, ZOO

    unknown = [name for name in names or () if name not in BY_NAME]
    if unknown:
        raise UsageError(f"no such bug: {', '.join(unknown)}; there are: {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names] if names else list(ZOO)


def _row(verdict: Verdict) -> tuple[str, ...]:
    simulated = ("", "", "", "")
    if verdict.simulation is not None:
        seen = verdict.simulation
        simulated = (
            f"{seen.found}/{seen.series}",
            "" if seen.median is None else f"{seen.median:g}",
            "" if seen.worst is None else str(seen.worst),
            seen.oracle or "nothing",
        )
    walked = ("", "", "")
    if verdict.explorer is not None:
        walk = verdict.explorer
        walked = (walk.world, str(walk.states), walk.property)
    floor = verdict.place.split(":")[0].split(".")[1]
    return (verdict.name, floor, *simulated, *walked)


def _command(arguments: argparse.Namespace, seeds: int | None, ticks: int | None) -> str:
    words = ["kept sim zoo"]
    words += [f"--bug {name}" for name in arguments.bug or ()]
    words.append(f"--series {arguments.series}")
    words += [f"--seeds {seeds}"] if seeds else []
    words += [f"--ticks {ticks}"] if ticks else []
    return " ".join(words)


def _document(found: list[Verdict], began_ms: int, now_ms: int, command: str) -> dict[str, object]:
    from kept.cli.durations import timestamp

    return {
        "date": timestamp(began_ms),
        "commit": _commit(),
        "command": command,
        "seconds": round((now_ms - began_ms) / 1_000, 1),
        "bugs": [_bug(verdict) for verdict in found],
    }


def _bug(verdict: Verdict) -> dict[str, object]:
    seen, walk = verdict.simulation, verdict.explorer
    return {
        "name": verdict.name,
        "off": verdict.off,
        "place": verdict.place,
        "simulation": None
        if seen is None
        else {
            "series": seen.series,
            "found": seen.found,
            "median": seen.median,
            "worst": seen.worst,
            "oracle": seen.oracle,
            "message": seen.message,
            "seed": seen.seed,
            "seconds": seen.seconds,
        },
        "explorer": None
        if walk is None
        else {
            "world": walk.world,
            "states": walk.states,
            "moves": walk.moves,
            "property": walk.property,
            "seconds": walk.seconds,
        },
        "why": "" if verdict.found else verdict.why,
    }


def _commit() -> str:
    """The commit of the code that runs, or "unknown" outside of a repository."""
    try:
        run = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return run.stdout.strip() or "unknown"


def _save(document: dict[str, object]) -> None:
    import msgspec

    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
