"""Walks all interleavings of the machine with workers, client and network, in small worlds.

kept check --depth 12
kept check --world job --world timer
kept check --record reliability/explorer.json
kept check --list
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.output import Output
from kept.cli.sim.options import record_file
from kept.runtime import SystemRuntime
from kept.sim.explorer.explore import MAX_STATES, Exploration
from kept.sim.explorer.parallel import Bounds, explore_all
from kept.sim.explorer.worlds import BY_NAME, WORLDS
from kept.sim.records import ExplorerRecord, WorldRecord, save, stamp

_HEADER: Final = ("WORLD", "STATES", "TRANSITIONS", "DEPTH", "EXHAUSTED", "STATES/S", "FOUND")


def add_arguments(parser: argparse.ArgumentParser, _everywhere: argparse.ArgumentParser) -> None:
    """The options of `kept check`."""
    parser.add_argument(
        "--depth",
        type=_positive,
        metavar="N",
        help="the longest run in moves (default: all there are)",
    )
    parser.add_argument(
        "--world",
        action="append",
        choices=list(BY_NAME),
        metavar="NAME",
        help="explore this world, and not all of them; may be repeated",
    )
    parser.add_argument(
        "--states",
        type=_positive,
        default=MAX_STATES,
        metavar="N",
        help=f"stop a world after so many states ({MAX_STATES})",
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        metavar="N",
        help="how many worlds at once (all cores); each holds up to so many states",
    )
    parser.add_argument("--list", action="store_true", help="tell which worlds there are")
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print JSON, one document a world",
    )
    parser.add_argument(
        "--record",
        type=record_file,
        metavar="FILE",
        help="write the figures as JSON, for `kept sim report`",
    )
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    output = Output(0, json=arguments.json, quiet=arguments.quiet)
    worlds = [BY_NAME[name] for name in arguments.world or BY_NAME]
    if arguments.list:
        return _list(output)
    runtime = SystemRuntime()
    began_ms = runtime.now_ms()
    explorations = []
    bounds = Bounds(arguments.depth, arguments.states)
    for done in explore_all([world.name for world in worlds], bounds, arguments.processes):
        _announce(output, done)
        explorations.append(done)
        if output.json:
            output.document(_document(done))
    if not output.json:
        _print(output, explorations)
    if arguments.record is not None:
        _save(arguments, explorations, began_ms, runtime.now_ms())
    return EXIT_REFUSED if any(each.finding for each in explorations) else EXIT_OK


def _list(output: Output) -> int:
    if output.json:
        for world in WORLDS:
            output.document({"world": world.name, "about": world.about})
    else:
        output.rows(("WORLD", "ABOUT"), [(world.name, world.about) for world in WORLDS])
    return EXIT_OK


def _announce(output: Output, done: Exploration) -> None:
    """All worlds take minutes, and whoever waits wants to know how far it is."""
    if sys.stderr.isatty() and not output.json:
        output.note(f"{done.world}: {BY_NAME[done.world].about} ({done.seconds:.1f} s)")


def _print(output: Output, explorations: list[Exploration]) -> None:
    rows = [
        (
            each.world,
            str(each.states),
            str(each.transitions),
            str(each.depth),
            "yes" if each.exhausted else "no",
            f"{each.states_per_second:.0f}",
            each.finding.name if each.finding else "nothing",
        )
        for each in explorations
    ]
    output.rows(_HEADER, rows)
    for each in explorations:
        if each.finding is None:
            continue
        output.line(f"\n{each.world}: {each.finding.name}\n  {each.finding.why}")
        for number, text in enumerate(each.finding.trace, start=1):
            output.line(f"  {number:>3}. {text}")
        for text in each.finding.cycle:
            output.line(f"  again and again: {text}")


def _save(
    arguments: argparse.Namespace, explorations: list[Exploration], began_ms: int, now_ms: int
) -> None:
    worlds = [
        WorldRecord(
            world=done.world,
            states=done.states,
            transitions=done.transitions,
            depth=done.depth,
            exhausted=done.exhausted,
            seconds=round(done.seconds, 1),
            found=done.finding.name if done.finding else None,
        )
        for done in explorations
    ]
    command = "kept check"
    if arguments.depth is not None:
        command += f" --depth {arguments.depth}"
    if arguments.states != MAX_STATES:
        command += f" --states {arguments.states}"
    command += "".join(f" --world {name}" for name in arguments.world or ())
    record = ExplorerRecord(worlds=worlds)
    stamp(record, now_ms=now_ms, began_ms=began_ms, command=command)
    try:
        save(record, arguments.record)
    except OSError as error:
        raise UsageError(f"{arguments.record} cannot be written: {error.strerror}") from None


def _document(done: Exploration) -> dict[str, object]:
    finding = done.finding
    return {
        "world": done.world,
        "states": done.states,
        "transitions": done.transitions,
        "depth": done.depth,
        "exhausted": done.exhausted,
        "seconds": round(done.seconds, 3),
        "statesPerSecond": round(done.states_per_second),
        "applied": done.applied,
        "databases": done.databases,
        "properties": len(done.reached),
        "found": None if finding is None else finding._asdict(),
    }


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number
