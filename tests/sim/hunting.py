"""Looks for the first seed in which something breaks."""

from __future__ import annotations

from kept.sim.mix import draw_mix
from kept.sim.run import run_seed

TICKS = 60
MAX_SEEDS = 12


def broken_by(
    *,
    ticks: int = TICKS,
    prompt: bool = False,
    store: str | None = None,
    most: int = MAX_SEEDS,
    first: int = 1,
) -> str:
    """What broke, in the first seed in which anything did; "" if none. `prompt`: only worlds
    without faults, in which nothing may come late; `store`: only those on this one; `most`:
    so many seeds; `first`: from there on, where those before are known not to show it soon."""
    mixes = ((seed, draw_mix(seed)) for seed in range(first, first + 500))
    seeds = (
        seed
        for seed, mix in mixes
        if (mix.prompt or not prompt) and (store is None or mix.store == store)
    )
    for _, seed in zip(range(most), seeds, strict=False):
        broken = run_seed(seed, ticks).broken
        if broken is not None:
            return broken
    return ""
