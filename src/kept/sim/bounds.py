"""Bounds of the system that are so small in some seeds that they are reached.

A page holds a thousand children and a step drains a thousand callbacks; no simulated workflow has as
many. What happens at a bound is code like any other, so some worlds have bounds of one, two, three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from random import Random
from typing import Final, NamedTuple

SHARE_OF_TIGHT: Final = 0.5
SHARE_OF_BOUNDS: Final = 0.5


class Bound(NamedTuple):
    """A constant that bounds something: the values that are small, and the modules that read it."""

    small: tuple[int, ...]
    modules: tuple[str, ...]
    # Whether what is bounded only takes more turns, and no longer.
    prompt: bool = True


_EXECUTION: Final = ("kept.sdk.execution",)
_SCHEDULES: Final = ("kept.machine.schedules", "kept.sim.timetable")
_STORES: Final = ("kept.stores.memory.reading", "kept.stores.sqlite.load")

BOUNDS: Final[Mapping[str, Bound]] = {
    "MAX_EDGES_PER_STEP": Bound((1, 2), ("kept.machine.dispatch", "kept.check.scans", *_STORES)),
    "MAX_INSTANTS_PER_STEP": Bound((1, 2), ("kept.machine.schedules", "kept.machine.backfill")),
    "MAX_WAITING_INSTANTS": Bound((1, 2), _SCHEDULES),
    "MISSED_AFTER_MS": Bound((2_500, 9_000), _SCHEDULES),
    # Pages of children only: what a lease brings must be all, for clients that know no pages.
    "MAX_PRELOAD_RECORDS": Bound((1, 3), ("kept.engine.searching",)),
    "MAX_SCAN_ROWS": Bound((1, 3), ("kept.engine.searching",)),
    "MAX_CANCELED_PER_COMMIT": Bound((1, 2), ("kept.machine.cancellation",), prompt=False),
    "MAX_COMMIT_ITEMS": Bound((1, 3), ("kept.engine.committer",), prompt=False),
    "MAX_DUE_ITEMS": Bound((1, 3), ("kept.engine.background",), prompt=False),
    "MAX_MESSAGES_PER_LOOK": Bound((1, 2), ("kept.engine.outbox",), prompt=False),
    "MAX_WATCHED": Bound((1, 2), ("kept.sdk.watching",), prompt=False),
    "MAX_SINGLE_LOOKS": Bound((0, 1), _EXECUTION, prompt=False),
    "MAX_CONCURRENT_CREATES": Bound((1, 2), _EXECUTION),
    "MAX_CARRIED_BY_EACH": Bound((0, 1), _EXECUTION),
}
# Loaded here, so that none of them is loaded, and reads a small bound for good, during a run.
_MODULES: Final = {
    name: [import_module(module) for module in bound.modules] for name, bound in BOUNDS.items()
}


def draw_bounds(seed: int, *, calm: bool) -> dict[str, int]:
    """The small bounds of a seed; none that makes anybody wait where leases must not run out."""
    random = Random(f"{seed}/bounds")
    if random.random() >= SHARE_OF_TIGHT:
        return {}
    return {
        name: random.choice(bound.small)
        for name, bound in BOUNDS.items()
        if random.random() < SHARE_OF_BOUNDS and (bound.prompt or not calm)
    }


@contextmanager
def bounded(bounds: Mapping[str, int]) -> Iterator[None]:
    """The system has these bounds, in this process."""
    before = [(module, name, getattr(module, name)) for name in bounds for module in _MODULES[name]]
    try:
        for module, name, _ in before:
            setattr(module, name, bounds[name])
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
