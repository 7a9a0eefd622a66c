"""`kept sim zoo`: every safeguard switched off in turn, and in how many seeds that is noticed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.output import Output
from kept.cli.sim.options import Verbs, add_verb, positive, record_file
from kept.runtime import SystemRuntime

if TYPE_CHECKING:  # help is shown without loading the whole system
    from kept.sim.records import ZooBug, ZooRecord
    from kept.sim.zoo.bug import Bug
    from kept.sim.zoo.runner import Result, Verdict

DEFAULT_SERIES: Final = 5
DEFAULT_SEEDS: Final = 200
DEFAULT_TICKS: Final = 60
_HEADER: Final = ("BUG", "FLOOR", "SERIES", "MEDIAN", "WORST", "BY", "WORLD", "STATES", "BY")


def add_verbs(verbs: Verbs, everywhere: argparse.ArgumentParser) -> None:
    """`zoo`."""
    one = add_verb(verbs, everywhere, "zoo", "switch each safeguard off, and see who notices")
    one.add_argument("--bug", action="append", default=[], metavar="NAME", help="this one (all)")
    for option, default, what in (
        ("--series", DEFAULT_SERIES, "series of seeds for each"),
        ("--seeds", DEFAULT_SEEDS, "seeds in a series at most"),
        ("--ticks", DEFAULT_TICKS, "seconds of virtual time with faults"),
    ):
        one.add_argument(
            option, type=positive, default=default, metavar="N", help=f"{what} ({default})"
        )
    one.add_argument(
        "--processes", type=positive, default=None, metavar="N", help="how many at once (all cores)"
    )
    one.add_argument(
        "--record",
        type=record_file,
        default=None,
        metavar="FILE",
        help="write what was found as JSON, such as reliability/zoo.json for `kept sim report`",
    )
    one.set_defaults(run=_zoo)


def _zoo(arguments: argparse.Namespace) -> int:
    """Plays the zoo. Ends with 1 when a bug is not found, or something is without a bug."""
    from kept.sim.zoo.runner import CONTROL, run_zoo, verdicts

    runtime = SystemRuntime()
    began_ms = runtime.now_ms()
    output = Output(began_ms, json=arguments.json, quiet=arguments.quiet)
    bugs = _chosen(arguments.bug)
    results: list[Result] = []
    for result in run_zoo(
        bugs,
        series=arguments.series,
        seeds=arguments.seeds,
        ticks=arguments.ticks,
        processes=arguments.processes,
    ):
        results.append(result)
        if sys.stderr.isatty():
            output.note(f"{result.job.name}: {len(results)} jobs done")
    found = verdicts(bugs, results)
    false = [each.seen for each in results if each.job.name == CONTROL and each.seen]
    record = _record(found, began_ms, runtime.now_ms(), _command(arguments))
    if output.json:
        output.document(record)
    else:
        output.rows(_HEADER, [_row(verdict) for verdict in found])
        for verdict in found:
            if not verdict.found:
                output.line(f"not found: {verdict.name}: {verdict.why or 'nobody knows why'}")
        for seen in false:
            output.line(f"found without a bug, in seed {seen.seed}: {seen.message}")
    if arguments.record is not None:
        _save(record, arguments.record)
    return EXIT_REFUSED if false or not all(each.found for each in found) else EXIT_OK


def _chosen(names: list[str]) -> list[Bug]:
    from kept.sim.zoo.registry import BY_NAME, ZOO

    unknown = [name for name in names if name not in BY_NAME]
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


def _command(arguments: argparse.Namespace) -> str:
    words = ["kept sim zoo", *(f"--bug {name}" for name in arguments.bug)]
    words += [f"--{name} {getattr(arguments, name)}" for name in ("series", "seeds", "ticks")]
    return " ".join(words)


def _record(found: list[Verdict], began_ms: int, now_ms: int, command: str) -> ZooRecord:
    from kept.sim.records import ZooRecord, stamp

    record = ZooRecord(bugs=[_bug(verdict) for verdict in found])
    stamp(record, now_ms=now_ms, began_ms=began_ms, command=command)
    return record


def _bug(verdict: Verdict) -> ZooBug:
    from kept.sim.records import SeedsToFind, WalkToFind, ZooBug

    bug = ZooBug(name=verdict.name, off=verdict.off, why="" if verdict.found else verdict.why)
    if (seen := verdict.simulation) is not None:
        bug.simulation = SeedsToFind(
            series=seen.series,
            found=seen.found,
            median=seen.median,
            worst=seen.worst,
            oracle=seen.oracle,
        )
    if (walk := verdict.explorer) is not None:
        bug.explorer = WalkToFind(
            world=walk.world, states=walk.states, moves=walk.moves, property=walk.property
        )
    return bug


def _save(record: ZooRecord, path: Path) -> None:
    from kept.sim.records import save

    try:
        save(record, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
