"""Runs the benchmarks and prints the table: `make bench`, or `make bench ARGS="--quick"`."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Iterator

from benchmarks import baseline, cycle, latency, locking, over_http, stored, waiting, work
from benchmarks.folder import fresh_folder
from benchmarks.measure import HEADER, Result, repeated

MILLION = 1_000_000


def cycles(runs: int, scale: int) -> Iterator[Result]:
    """The job cycle in process, against the same work in bare SQL in the same run."""
    jobs = 20_000 // scale
    ours: list[float] = []
    bare: list[float] = []
    cycle.job_cycle(jobs)
    for _ in range(runs):
        ours.append(cycle.job_cycle(jobs))
        bare.append(baseline.bare_cycle(jobs))
    yield Result(
        "job cycle (create, claim, fulfil) in process, SQLite", "jobs/s", ours, 12_000, 6_000
    )
    yield Result("the same in bare SQL, batches of 100, no rules", "jobs/s", bare)
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    yield Result("ratio of the two", "", ratios)


def served(runs: int, scale: int) -> Iterator[Result]:
    """Over HTTP."""
    operations = 20_000 // scale
    values = repeated(lambda: over_http.our_client(operations), runs)
    yield Result("operations over HTTP, our client, 64 in flight", "/s", values, 8_000, 5_000)
    values = repeated(lambda: over_http.foreign_client(operations), runs)
    yield Result("single posts by a plain client, 128 in flight", "/s", values, 5_000, 3_000)


def worked(runs: int, scale: int) -> Iterator[Result]:
    """What a worker gets done through the SDK."""
    jobs = 10_000 // scale
    values = repeated(lambda: work.drain(jobs), runs)
    yield Result("no-op jobs drained by one worker, SDK, SQLite", "jobs/s", values)
    values = repeated(lambda: work.workflows(jobs // 2), runs)
    yield Result("workflows with one step, 64 in flight, SDK, SQLite", "/s", values)


def latencies(runs: int, scale: int) -> Iterator[Result]:
    """Enqueue to start with an idle worker."""
    jobs = 1_000 // scale
    for name, measure, goal in (
        ("embedded", latency.embedded, 1.5),
        ("over HTTP", latency.over_http, 3.0),
    ):
        both = [measure(jobs) for _ in range(runs + 1)][1:]
        p50, p99 = [one for one, _ in both], [other for _, other in both]
        yield Result(f"enqueue to start, {name}, p50", "ms", p50, goal, None, True)
        yield Result(f"enqueue to start, {name}, p99", "ms", p99)


def locked(runs: int, scale: int) -> Iterator[Result]:
    """Locks, alone and in a crowd."""
    rounds = 2_000 // scale
    values = repeated(lambda: locking.uncontended(rounds), runs)
    yield Result("lock acquired and released, one task, embedded", "/s", values)
    values = repeated(lambda: locking.many_locks(rounds * 4), runs)
    yield Result("the same, 64 tasks with a lock each", "/s", values)
    for name, measure in (("embedded", locking.embedded), ("over HTTP", locking.over_http)):
        both = [measure(rounds // 2) for _ in range(runs + 1)][1:]
        p50, p95 = [one for one, _ in both], [other for _, other in both]
        name = f"wait for a lock, {locking.CONTENDERS} contenders holding 1 ms, {name}"
        yield Result(f"{name}, p50", "ms", p50)
        yield Result(f"{name}, p95", "ms", p95, 100, None, True)


def with_a_million(runs: int, scale: int) -> Iterator[Result]:
    """The cycle beside a million stored promises, against an empty file in the same run."""
    jobs = 20_000 // scale
    with fresh_folder() as folder:
        path = folder / "full.db"
        stored.fill(path, MILLION // scale)
        ratios = []
        for run in range(runs):
            full = stored.cycle_on(path, jobs, f"run-{run}")
            ratios.append(full / stored.cycle_on(folder / f"empty-{run}.db", jobs, f"run-{run}"))
        yield Result(
            f"cycle with {MILLION // scale:,} stored, share of empty", "", ratios, 0.8, 0.8
        )
        starts = [stored.start_up(path) for _ in range(runs)]
    yield Result("start-up on that file", "s", [one for one, _ in starts], 2, 2, True)
    yield Result(
        "peak resident memory after it", "MiB", [other for _, other in starts], 300, 300, True
    )


def with_many_waiting(runs: int, scale: int) -> Iterator[Result]:
    """The cycle where a million jobs wait and a million are delayed, and with many lanes."""
    jobs = 20_000 // scale
    million = MILLION // scale
    for name, due, delayed, lanes in (
        (
            f"cycle with {million:,} waiting and {million:,} delayed, share of empty",
            million,
            million,
            1,
        ),
        ("cycle with 100,000 waiting in 10,000 lanes, share of empty", 100_000, 0, 10_000),
    ):
        with fresh_folder() as folder:
            path = folder / "full.db"
            waiting.fill(path, due, delayed, lanes)
            ratios = []
            for run in range(runs):
                full = waiting.cycle_on(path, jobs, f"run-{run}", lanes)
                empty = folder / f"empty-{run}.db"
                ratios.append(full / waiting.cycle_on(empty, jobs, f"run-{run}"))
            yield Result(name, "", ratios, 0.8, 0.8)
    for name, lanes, shut in (
        ("claim of one job, one lane", 1, False),
        ("the same, 10,000 lanes", 10_000, False),
        ("the same, all 10,000 at their limits", 10_000, True),
    ):
        times = [waiting.claim_of_one(lanes, shut=shut) for _ in range(runs)]
        yield Result(name, "ms", times)


def beside_a_flood(runs: int, scale: int) -> Iterator[Result]:
    """A quiet lane's jobs, alone and while another lane has many that wait."""
    jobs = 500 // scale
    for name, flood in (("alone", 0), ("beside 100,000 of another lane", 100_000)):
        both = [waiting.quiet_lane(flood, jobs) for _ in range(runs)]
        p50, p99 = [one for one, _ in both], [other for _, other in both]
        yield Result(f"create to start, a quiet lane {name}, p50", "ms", p50)
        yield Result(f"create to start, a quiet lane {name}, p99", "ms", p99)


PARTS: dict[str, Callable[[int, int], Iterator[Result]]] = {
    "cycle": cycles,
    "http": served,
    "work": worked,
    "latency": latencies,
    "locks": locked,
    "million": with_a_million,
    "waiting": with_many_waiting,
    "flood": beside_a_flood,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the work, for a first look"
    )
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
          f"{os.cpu_count()} cores, {platform.system()}\n")  # fmt: skip
    print(HEADER, flush=True)
    for part in arguments.parts or PARTS:
        for result in PARTS[part](arguments.runs, 10 if arguments.quick else 1):
            print(result.row(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
