"""Bugs of what reaches whom are found: cancellations, schedules and their deploys, claims, tenants."""

from __future__ import annotations

import pytest

from kept.sim.mix import draw_mix
from kept.sim.zoo.play import hunt
from kept.sim.zoo.registry import BY_NAME

pytestmark = pytest.mark.timeout(300)

TICKS = 40
# Of those in which the bug may show.
MAX_SEEDS = 15
FIRST_SEED = 900


@pytest.mark.parametrize(
    ("name", "oracles"),
    [
        ("detached-canceled", ("preserved_detached_work", "scripts go as written")),
        ("canceled-sleeper-not-woken", ("consistent_cancel_request_wakes_suspended",)),
        ("overlap-not-asked", ("overlapping is as the schedule says",)),
        ("deploy-restarts-clock", ("a changed schedule keeps its clock",)),
        ("deploy-changes-nothing", ("schedules fire what was put",)),
        ("schedule-fires-twice", ("an instant is fired once",)),
        ("functions-not-asked", ("claims bring what they ask for", "linearizable")),
        ("tenant-not-asked", ("tenants are apart", "scripts go as written")),
    ],
)
def test_a_bug_is_found(name: str, oracles: tuple[str, ...]) -> None:
    """Within a few seeds one of the oracles that are there for it speaks."""
    bug = BY_NAME[name]
    seeds = [seed for seed in range(FIRST_SEED, 1_200) if bug.may_show(draw_mix(seed))][:MAX_SEEDS]
    seen = hunt(bug, seeds, TICKS)
    assert seen is not None
    assert seen.oracle in oracles
