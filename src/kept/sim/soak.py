"""Many seeds on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial

import msgspec

from kept.sim.run import Outcome, run_seed


class Tally(msgspec.Struct):
    """What many runs came to together."""

    runs: int = 0
    failed: list[int] = []
    callbacks: int = 0
    events: int = 0
    commits: int = 0
    goals: int = 0
    compared: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    answers: Counter[str] = msgspec.field(default_factory=Counter)
    properties: Counter[str] = msgspec.field(default_factory=Counter)
    judged: int = 0
    components: int = 0
    steps: int = 0
    # Components about which nothing could be said.
    unknown: int = 0

    def add(self, outcome: Outcome) -> None:
        """Counts one run."""
        self.runs += 1
        if not outcome.ok:
            self.failed.append(outcome.seed)
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


def soak(seeds: range, ticks: int, processes: int | None = None) -> Iterator[Outcome]:
    """Plays seeds, on all cores unless `processes` says otherwise; outcomes as they come."""
    count = min(processes or os.cpu_count() or 1, len(seeds))
    if count <= 1:
        yield from (run_seed(seed, ticks) for seed in seeds)
        return
    # Spawned, so that a run is the same whatever this process has done before.
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        yield from pool.imap_unordered(partial(run_seed, ticks=ticks), seeds)
