"""Many seeds on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Final

import msgspec

from kept.sim.records import Failure, Linearizability, SoakRecord
from kept.sim.run import Outcome, run_seed

# Seeds that wait for a core, for each core: enough that none is idle.
QUEUED_SEEDS: Final = 2


class Tally(msgspec.Struct):
    """What many runs came to together."""

    runs: int = 0
    ticks: int = 0
    failures: list[Failure] = []
    callbacks: int = 0
    events: int = 0
    commits: int = 0
    goals: int = 0
    compared: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    answers: Counter[str] = msgspec.field(default_factory=Counter)
    properties: Counter[str] = msgspec.field(default_factory=Counter)
    # Of seeds that were played once so far, and are compared when they are played again.
    digests: dict[int, str] = {}
    played_twice: int = 0
    mismatches: list[int] = []

    @property
    def failed(self) -> list[int]:
        """The seeds that broke."""
        return sorted({failure.seed for failure in self.failures})

    @property
    def ok(self) -> bool:
        """Whether everything held, and every seed was the same each time."""
        return not self.failures and not self.mismatches

    judged: int = 0
    components: int = 0
    steps: int = 0
    # Components about which nothing could be said.
    unknown: int = 0
    # Histories with a component that has no order.
    violations: int = 0

    def add(self, outcome: Outcome, *, twice: bool = False) -> None:
        """Counts one run. Where each seed is played `twice`, what happened in the second run is what
        happened in the first, and not counted again: it is compared with that."""
        self.runs += 1
        if twice and self._compare(outcome):
            return
        self.ticks += outcome.ticks
        if outcome.broken is not None and outcome.seed not in self.failed:
            self.failures.append(Failure(outcome.seed, outcome.ticks, outcome.broken))
        self.callbacks += outcome.callbacks
        self.events += outcome.events
        self.commits += outcome.commits
        self.goals += outcome.goals
        self.compared += outcome.compared
        self.faults.update(outcome.faults)
        self.answers.update(outcome.answers)
        self.properties.update(outcome.properties)
        self.judged += outcome.judgement.operations
        self.components += outcome.judgement.components
        self.steps += outcome.judgement.steps
        self.unknown += len(outcome.judgement.unknown)
        self.violations += outcome.judgement.violation is not None

    def _compare(self, outcome: Outcome) -> bool:
        """Whether a run is the second one of its seed, held against the first."""
        other = self.digests.pop(outcome.seed, None)
        if other is None:
            self.digests[outcome.seed] = outcome.digest
            return False
        self.played_twice += 1
        if other != outcome.digest:
            self.mismatches.append(outcome.seed)
        return True

    def _linearizability(self) -> Linearizability:
        fine = self.components - self.unknown - self.violations
        verdicts = {
            "linearizable": fine,
            "not linearizable": self.violations,
            "unknown": self.unknown,
        }
        return Linearizability(
            operations=self.judged, components=self.components, steps=self.steps, verdicts=verdicts
        )

    def record(self) -> SoakRecord:
        """The tally as it is kept."""
        return SoakRecord(
            runs=self.runs,
            ticks=self.ticks,
            events=self.events,
            callbacks=self.callbacks,
            commits=self.commits,
            goals=self.goals,
            compared=self.compared,
            faults=self.faults,
            requests=succeeded(self.answers),
            properties=self.properties,
            linearizability=self._linearizability(),
            played_twice=self.played_twice,
            mismatches=sorted(self.mismatches),
            failures=sorted(self.failures, key=lambda failure: failure.seed),
        )


def succeeded(answers: dict[str, int]) -> Counter[str]:
    """How often each kind succeeded, from counts by kind and status."""
    counts: Counter[str] = Counter()
    for answer, count in answers.items():
        kind, status = answer.split()
        if int(status) < 400:
            counts[kind] += count
    return counts


def soak(
    seeds: Iterable[int], ticks: int, processes: int | None = None, *, twice: bool = False
) -> Iterator[Outcome]:
    """Plays seeds, on all cores unless `processes` says otherwise; outcomes as they come, two of each
    seed if `twice`. Seeds are asked for one by one, when there is room for another."""
    play = partial(run_seed, ticks=ticks)
    count = processes or os.cpu_count() or 1
    wanted = (seed for seed in seeds for _ in range(1 + twice))
    if count <= 1:
        yield from map(play, wanted)
        return
    results: SimpleQueue[Outcome | BaseException] = SimpleQueue()
    under_way = 0
    # Spawned, so that a run is the same whatever this process has done before, and each process has
    # its own order of hashes.
    with multiprocessing.get_context("spawn").Pool(count, _ignore_interrupts) as pool:
        for seed in wanted:
            if under_way >= count * QUEUED_SEEDS:
                yield _taken(results)
                under_way -= 1
            pool.apply_async(play, (seed,), callback=results.put, error_callback=results.put)
            under_way += 1
        for _ in range(under_way):
            yield _taken(results)


def _taken(results: SimpleQueue[Outcome | BaseException]) -> Outcome:
    result = results.get()
    if isinstance(result, BaseException):
        raise result
    return result


def _ignore_interrupts() -> None:
    """Whoever started this process ends it, and tells what it has by then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
