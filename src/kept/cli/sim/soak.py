"""`kept sim soak`: many seeds on all cores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Final

from kept.cli.durations import duration
from kept.cli.failure import EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.sim.options import Verbs, add_places, add_seed, add_verb, positive, record_file

if TYPE_CHECKING:
    from kept.runtime import SystemRuntime
    from kept.sim.run import Outcome
    from kept.sim.soak import Tally

DEFAULT_TICKS: Final = 150
DEFAULT_SEEDS: Final = 100
# So many seeds that break are shrunk; of the others the command is told.
SHRUNK_SEEDS: Final = 3


def add_verbs(verbs: Verbs, everywhere: argparse.ArgumentParser) -> None:
    """`soak`."""
    one = add_verb(verbs, everywhere, "soak", "play many seeds, on all cores")
    add_seed(one, f"seconds of virtual time with faults ({DEFAULT_TICKS})")
    add_places(one)
    length = one.add_mutually_exclusive_group()
    length.add_argument(
        "--seeds", type=positive, default=None, metavar="N", help=f"so many ({DEFAULT_SEEDS})"
    )
    length.add_argument(
        "--for",
        dest="limit",
        type=duration,
        default=None,
        metavar="TIME",
        help="as many as there is time for, such as 10m",
    )
    one.add_argument(
        "--twice",
        action="store_true",
        default=False,
        help="play each seed twice, and compare the traces",
    )
    one.add_argument(
        "--processes", type=positive, default=None, metavar="N", help="how many at once (all cores)"
    )
    one.add_argument(
        "--record",
        type=record_file,
        default=None,
        metavar="FILE",
        help="write the tally as JSON, such as reliability/soak.json for `kept sim report`",
    )
    one.set_defaults(run=_soak, ticks=DEFAULT_TICKS)


def _soak(arguments: argparse.Namespace) -> int:
    from kept.runtime import SystemRuntime
    from kept.sim.soak import Tally

    if arguments.limit == 0:
        raise UsageError("--for must be more than no time")
    runtime = SystemRuntime()
    began_ms = runtime.now_ms()
    tally = Tally()
    interrupted = _play(arguments, tally, runtime)
    if arguments.json:
        import msgspec

        print(msgspec.json.encode(tally.record()).decode())
    elif not arguments.quiet:
        from kept.cli.sim.words import print_tally

        print_tally(tally, arguments.ticks)
    if arguments.record is not None:
        _save(arguments, tally, began_ms, runtime.now_ms())
    if interrupted:
        return EXIT_INTERRUPTED
    if not arguments.json:
        _investigate(arguments, tally)
    return EXIT_OK if tally.ok else EXIT_REFUSED


def _play(arguments: argparse.Namespace, tally: Tally, runtime: SystemRuntime) -> bool:
    """Plays the seeds; whether it was interrupted."""
    from kept.sim.soak import soak

    seeds = _seeds(arguments, runtime)
    try:
        runs = soak(seeds, arguments.ticks, arguments.processes, twice=arguments.twice)
        for outcome in runs:
            tally.add(outcome, twice=arguments.twice)
            _tell(arguments, tally, outcome)
    except KeyboardInterrupt:
        return True
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
    return False


def _seeds(arguments: argparse.Namespace, runtime: SystemRuntime) -> Iterator[int]:
    first = arguments.seed
    if arguments.limit is None:
        yield from range(first, first + (arguments.seeds or DEFAULT_SEEDS))
        return
    deadline = runtime.monotonic() + arguments.limit / 1_000
    for seed in count(first):
        if runtime.monotonic() >= deadline:
            return
        yield seed


def _tell(arguments: argparse.Namespace, tally: Tally, outcome: Outcome) -> None:
    on_terminal = sys.stderr.isatty()
    if on_terminal:
        sys.stderr.write("\r\033[K")
    if not outcome.ok and not arguments.json:
        print(f"seed {outcome.seed} broke: {outcome.broken}")
        print(f"  kept sim run --seed {outcome.seed} --ticks {outcome.ticks}", flush=True)
    if outcome.seed in tally.mismatches and not arguments.json:
        print(f"seed {outcome.seed} was another run the second time", flush=True)
    if on_terminal:
        failed = f", {len(tally.failed)} broke" if tally.failed else ""
        sys.stderr.write(f"{tally.runs:,} runs, {tally.events:,} events{failed} ")
        sys.stderr.flush()


def _save(arguments: argparse.Namespace, tally: Tally, began_ms: int, now_ms: int) -> None:
    from kept.sim.records import save, stamp

    record = tally.record()
    stamp(record, now_ms=now_ms, began_ms=began_ms, command=_command(arguments))
    try:
        save(record, arguments.record)
    except OSError as error:
        raise UsageError(f"{arguments.record} cannot be written: {error.strerror}") from None


def _command(arguments: argparse.Namespace) -> str:
    """The command as it can be given again."""
    if arguments.limit is None:
        length = f"--seeds {arguments.seeds or DEFAULT_SEEDS}"
    else:
        length = f"--for {arguments.limit // 1_000}s"
    twice = " --twice" if arguments.twice else ""
    return f"kept sim soak --seed {arguments.seed} {length} --ticks {arguments.ticks}{twice}"


def _investigate(arguments: argparse.Namespace, tally: Tally) -> None:
    """The first seeds that broke, shrunk and drawn."""
    from kept.cli.sim.findings import Planned, shrunk, write_page
    from kept.sim.plan import draw_plan

    if arguments.no_shrink:
        return
    for seed in tally.failed[:SHRUNK_SEEDS]:
        print(f"\nseed {seed}")
        found = shrunk(Planned(draw_plan(seed, arguments.ticks)), arguments.out)
        if found is not None:
            write_page(found, arguments.out)
