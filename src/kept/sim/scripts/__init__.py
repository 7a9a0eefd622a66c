"""Scripts: conversations whose every answer is known beforehand, in whatever world they are held."""

from __future__ import annotations

from typing import Final

from kept.sim.mix import Mix
from kept.sim.scripts import (
    attributes,
    cancellations,
    dead_letters,
    keys,
    lanes,
    leases,
    promises,
    queues,
    refusals,
    retention,
    schedules,
)
from kept.sim.scripts.script import Script

__all__ = ["SCRIPTS", "Script", "is_exact", "may_play"]

_ANY = (
    leases.life, leases.fences, leases.parked, leases.beats, leases.created, dead_letters.rejected,
    dead_letters.halted, dead_letters.settled, queues.ranks, queues.functions, queues.several,
    queues.settings, promises.life, promises.edges, promises.crowd, promises.pages,
    refusals.invalid, retention.leaving, schedules.life,
    cancellations.tree, cancellations.heard, cancellations.asleep,
    attributes.said, keys.deduped, keys.debounced, keys.single,
    lanes.turns, lanes.limits, lanes.rates, lanes.depth, lanes.paused,
)  # fmt: skip
_TIMED = (promises.deadlines, queues.delays, queues.expiry, queues.waiting,
          cancellations.grace)  # fmt: skip
SCRIPTS: Final = {script.__name__ + "@" + script.__module__.rpartition(".")[2]: script
                  for script in (*_ANY, *_TIMED)}  # fmt: skip
TIMED: Final = frozenset(name for name, script in SCRIPTS.items() if script in _TIMED)


def may_play(mix: Mix) -> bool:
    """Whether answers can be known: a request that comes again much later is another request."""
    return "duplicated" not in mix.faults


def is_exact(mix: Mix) -> bool:
    """Whether times can be judged: all clocks agree."""
    return not mix.clock_spread_ms and not mix.drift and "clock_jump" not in mix.faults


def playable(mix: Mix) -> list[str]:
    """The names of the scripts that a world allows."""
    if not may_play(mix):
        return []
    return [name for name in SCRIPTS if is_exact(mix) or name not in TIMED]
