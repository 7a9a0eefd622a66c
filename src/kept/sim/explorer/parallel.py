"""Several worlds at once, one to a process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kept.runtime import SystemRuntime
from kept.sim.explorer.explore import Exploration, explore
from kept.sim.explorer.worlds import BY_NAME


class Bounds(NamedTuple):
    """Where to stop: the longest run in moves (None: there is no bound), and the most states."""

    depth: int | None
    states: int


def explore_all(
    names: Sequence[str], bounds: Bounds, processes: int | None = None
) -> Iterator[Exploration]:
    """Explores worlds by name, on all cores unless `processes` says otherwise.

    The explorations come in the order of the names, whichever is done first.
    """
    count = min(processes or os.cpu_count() or 1, len(names))
    if count <= 1:
        yield from (_explore(name, bounds) for name in names)
        return
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        # The largest worlds are the last in the list, and what takes longest had best begin first.
        begun = [pool.apply_async(_explore, (name, bounds)) for name in reversed(names)]
        for each in reversed(begun):
            yield each.get()


def _explore(name: str, bounds: Bounds) -> Exploration:
    clock = SystemRuntime().monotonic
    return explore(BY_NAME[name], clock, depth=bounds.depth, max_states=bounds.states)
