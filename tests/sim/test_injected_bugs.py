"""Bugs of the zoo are found within a few seeds, each by an oracle that says what broke.

These are some that show soon, of every floor that takes part in any run; `kept sim zoo` plays all.
"""

from __future__ import annotations

import pytest

from kept.sim.zoo.play import Seen, hunt
from kept.sim.zoo.registry import BY_NAME

TICKS = 40
SEEDS = range(1, 61)
# One of each floor but transports, whose bugs need more seeds than a test has time for.
SOON = {
    "half-a-request-stays": "machine",
    "awaiter-not-woken": "machine",
    "settled-tree-forgotten": "machine",
    "retention-not-waited-for": "machine",
    "reply-before-commit": "engine",
    "failed-commit-answered": "engine",
    "exact-timer-off": "engine",
    "commit-forgotten": "stores",
    "batch-answers-crossed": "server",
    "repeats-without-an-id": "client",
    "heartbeat-stops": "sdk",
    "steps-not-recorded": "sdk",
}


def found(name: str) -> Seen:
    """What found a bug, which something must."""
    seen = hunt(BY_NAME[name], SEEDS, TICKS)
    assert seen is not None, f"nobody missed what {name} takes away"
    return seen


@pytest.mark.parametrize("name", SOON)
def test_a_bug_is_found(name: str) -> None:
    """A safeguard that is off is missed in one of the first seeds, and the oracle is named."""
    assert BY_NAME[name].floor == SOON[name]
    seen = found(name)
    assert seen.oracle
    assert seen.message
