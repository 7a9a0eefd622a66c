"""The whole zoo on all cores: in how many seeds each bug is found, by what, and how long it took."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec

from kept.runtime import SystemRuntime
from kept.sim.zoo.bug import Bug
from kept.sim.zoo.play import DEFAULT_TICKS, OutOfTime, Seen, Walked, hunt, walk
from kept.sim.zoo.registry import BY_NAME

DEFAULT_SERIES: Final = 3
DEFAULT_SEEDS: Final = 60
# The first seed of the first series, and how far the series are apart: no seed is played twice.
FIRST_SEED: Final = 1_000_000
SEEDS_APART: Final = 100_000
# The name under which the series are played with no bug put in: nothing may be found then.
CONTROL: Final = "nothing"


class Job(NamedTuple):
    """One series of seeds for one bug, or its walks (`series` -1). From `until` (ms) on no seed and
    no walk is begun."""

    name: str
    series: int
    seeds: int
    ticks: int
    until: int | None = None


class Result(NamedTuple):
    """What came of a job, and in how many seconds. One that is not `finished` says nothing: there
    was no time for it."""

    job: Job
    seen: Seen | None
    walked: list[Walked]
    seconds: float
    finished: bool = True


class InSimulation(msgspec.Struct, kw_only=True):
    """In how many seeds the simulation found a bug: in those series that did (`found` of the
    `series` that had time to end), the median and the worst. `oracle` and `message` are those of the
    first that did."""

    series: int
    found: int
    median: float | None
    worst: int | None
    oracle: str
    message: str
    seed: int | None
    oracles: list[str]
    seconds: float


class InExplorer(msgspec.Struct, kw_only=True):
    """In which world the explorer found a bug, by what, and after how many states and moves."""

    world: str
    states: int
    moves: int
    property: str
    seconds: float


class Verdict(msgspec.Struct, kw_only=True):
    """What found a bug; None where that was not asked, or did not. One that is not `played` had no
    time for a whole series, nor for all its walks."""

    name: str
    off: str
    place: str
    simulation: InSimulation | None
    explorer: InExplorer | None
    # Why nothing finds it, as far as that is known.
    why: str
    played: bool

    @property
    def found(self) -> bool:
        """Whether anything found it: a seed, or a walk."""
        by_seeds = self.simulation is not None and self.simulation.found > 0
        return by_seeds or self.explorer is not None


def run_zoo(
    bugs: Sequence[Bug],
    *,
    series: int = DEFAULT_SERIES,
    seeds: int = DEFAULT_SEEDS,
    ticks: int = DEFAULT_TICKS,
    processes: int | None = None,
    control: bool = True,
    until: int | None = None,
) -> Iterator[Result]:
    """Plays each bug, on all cores unless `processes` says otherwise; results as they come.

    A series ends with the first seed that finds the bug, at the latest after `seeds`. With
    `control` the series are played without a bug too, a few seeds of each. From `until` (ms) on
    nothing more is begun; each bug comes once before any comes again.
    """
    jobs = [Job(bug.name, -1, 0, 0, until) for bug in bugs if bug.walks]
    for number in range(series):
        jobs += [Job(bug.name, number, seeds, ticks, until) for bug in bugs if bug.simulated]
        if control:
            jobs.append(Job(CONTROL, number, min(seeds, 20), ticks, until))
    count = min(processes or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        yield from map(run_job, jobs)
        return
    # Spawned, and a bug is applied in the process that plays it, so none of them meets another.
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        yield from pool.imap_unordered(run_job, jobs)


def run_job(job: Job) -> Result:
    """One job, in this process."""
    runtime = SystemRuntime()
    began = runtime.monotonic()
    seen, walked, finished = None, [], True

    def has_time() -> bool:
        return job.until is None or runtime.now_ms() < job.until

    if job.series >= 0:
        first = FIRST_SEED + job.series * SEEDS_APART
        seeds = range(first, first + job.seeds)
        try:
            seen = hunt(BY_NAME.get(job.name), seeds, job.ticks, has_time)
        except OutOfTime:
            finished = False
    elif finished := has_time():
        walked = list(walk(BY_NAME[job.name], runtime.monotonic))
    return Result(job, seen, walked, runtime.monotonic() - began, finished)


def verdicts(bugs: Sequence[Bug], results: Sequence[Result]) -> list[Verdict]:
    """What came of each bug, in the order of the zoo."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.job.name, []).append(result)
    return [_verdict(bug, by_name.get(bug.name, [])) for bug in bugs]


def _verdict(bug: Bug, results: list[Result]) -> Verdict:
    ended = [each for each in results if each.finished]
    hunts = sorted((each for each in ended if each.job.series >= 0), key=lambda each: each.job)
    walks = [each for each in ended if each.job.series < 0]
    return Verdict(
        name=bug.name,
        off=bug.off,
        place=bug.place,
        simulation=_in_simulation(hunts) if hunts else None,
        explorer=_in_explorer(walks),
        why=bug.unfound,
        played=bool(ended) and len(walks) == bool(bug.walks) and bool(hunts) == bug.simulated,
    )


def _in_simulation(hunts: list[Result]) -> InSimulation:
    seen = [each.seen for each in hunts if each.seen is not None]
    first = seen[0] if seen else None
    numbers = [each.number for each in seen]
    return InSimulation(
        series=len(hunts),
        found=len(seen),
        median=median(numbers) if numbers else None,
        worst=max(numbers, default=None),
        oracle=first.oracle if first else "",
        message=first.message if first else "",
        seed=first.seed if first else None,
        oracles=sorted({each.oracle for each in seen}),
        seconds=round(sum(each.seconds for each in hunts), 1),
    )


def _in_explorer(walks: list[Result]) -> InExplorer | None:
    for result in walks:
        for walked in result.walked:
            if walked.finding is not None:
                return InExplorer(
                    world=walked.world,
                    states=walked.states,
                    moves=len(walked.finding.trace),
                    property=walked.finding.name,
                    seconds=round(result.seconds, 1),
                )
    return None
