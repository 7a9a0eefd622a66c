"""`kept sim zoo`: every safeguard switched off in turn, and in how many seeds that is noticed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kept.cli.durations import duration
from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.output import Output
from kept.cli.sim.options import Verbs, add_verb, positive, record_file
from kept.runtime import SystemRuntime

if TYPE_CHECKING:  # help is shown without loading the whole system
    from kept.sim.records import ZooBug, ZooRecord
    from kept.sim.zoo.bug import Bug
    from kept.sim.zoo.runner import Result, Verdict

DEFAULT_SERIES: Final = 3
DEFAULT_SEEDS: Final = 60
DEFAULT_TICKS: Final = 25
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
        "--for",
        dest="limit",
        type=duration,
        default=None,
        metavar="TIME",
        help="begin nothing more after that long, such as 15m; what is left is said",
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
    one.add_argument(
        "--missed",
        action="store_true",
        default=False,
        help="play what the record has not found, and tell there what comes of it",
    )
    one.set_defaults(run=_zoo)


def _zoo(arguments: argparse.Namespace) -> int:
    """Plays the zoo. Ends with 1 when a bug is not found, or something is without a bug."""
    from kept.sim.records import is_found, joined
    from kept.sim.zoo.runner import CONTROL, run_zoo, verdicts

    if arguments.limit == 0:
        raise UsageError("--for must be more than no time")
    runtime = SystemRuntime()
    began_ms = runtime.now_ms()
    output = Output(began_ms, json=arguments.json, quiet=arguments.quiet)
    bugs = _chosen(arguments.bug)
    former = _former(arguments.record) if arguments.missed else None
    if former is not None:
        bugs = [bug for bug in bugs if not is_found(former, bug.name)]
    results: list[Result] = []
    for result in run_zoo(
        bugs,
        series=arguments.series,
        seeds=arguments.seeds,
        ticks=arguments.ticks,
        processes=arguments.processes,
        until=None if arguments.limit is None else began_ms + arguments.limit,
    ):
        results.append(result)
        output.note(_progress(result))
    found = verdicts(bugs, results)
    false = [each.seen for each in results if each.job.name == CONTROL and each.seen]
    record = _record(found, began_ms, runtime.now_ms(), _command(arguments))
    if output.json:
        output.document(record)
    else:
        _tell(output, found, [seen.message for seen in false])
    if former is not None:
        record = joined(former, record)
    if arguments.record is not None:
        _save(record, arguments.record)
    return EXIT_REFUSED if false or not all(each.found for each in found) else EXIT_OK


def _progress(result: Result) -> str:
    """What came of a series, or of the walks of a bug, in a line."""
    job, seen = result.job, result.seen
    what = "walks" if job.series < 0 else f"series {job.series + 1}"
    if not result.finished:
        came = "no time"
    elif job.series < 0:
        findings = [walked for walked in result.walked if walked.finding is not None]
        came = f"found in {findings[0].world}" if findings else "not found"
    elif seen is not None:
        came = f"found in seed {seen.number} ({seen.seed}): {seen.oracle}"
    else:
        came = f"not found in {job.seeds} seeds"
    return f"{job.name}, {what}: {came}, {result.seconds:.0f} s"


def _tell(output: Output, found: list[Verdict], false: list[str]) -> None:
    output.rows(_HEADER, [_row(verdict) for verdict in found])
    for verdict in found:
        if not verdict.found and verdict.played:
            output.line(f"not found: {verdict.name}: {verdict.why or 'nobody knows why'}")
    unplayed = [verdict.name for verdict in found if not verdict.found and not verdict.played]
    if unplayed:
        output.line(f"no time for: {', '.join(unplayed)}")
    for message in false:
        output.line(f"found without a bug: {message}")


def _chosen(names: list[str]) -> list[Bug]:
    from kept.sim.zoo.registry import BY_NAME, ZOO

    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UsageError(f"no such bug: {', '.join(unknown)}; there are: {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names] if names else list(ZOO)


def _former(path: Path | None) -> ZooRecord:
    """The record that `--missed` goes on with."""
    from kept.sim.records import RecordError, ZooRecord, load

    if path is None:
        raise UsageError("--missed goes on with a record: name it with --record")
    try:
        former = load(ZooRecord, path)
    except RecordError as error:
        raise UsageError(str(error)) from None
    if former is None:
        raise UsageError(f"{path} is not there")
    return former


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
    words += [] if arguments.limit is None else [f"--for {arguments.limit // 1_000}s"]
    return " ".join(words)


def _record(found: list[Verdict], began_ms: int, now_ms: int, command: str) -> ZooRecord:
    from kept.sim.records import ZooRecord, stamp

    record = ZooRecord(bugs=[_bug(verdict) for verdict in found])
    stamp(record, now_ms=now_ms, began_ms=began_ms, command=command)
    return record


def _bug(verdict: Verdict) -> ZooBug:
    from kept.sim.records import SeedsToFind, WalkToFind, ZooBug

    bug = ZooBug(name=verdict.name, off=verdict.off, played=verdict.played)
    bug.why = "" if verdict.found else verdict.why
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
