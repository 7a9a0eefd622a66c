"""Seeds that once broke stay whole. What each found is in the test or the commit of its fix: a seed
plays something else when the worlds change, so it guards only beside those."""

from __future__ import annotations

import pytest

from kept.sim.run import run_seed

TICKS = 25
FOUND = {
    169792578: "who stops hands back what was broken off",
    169792608: "a lost answer stays repeatable past a lease that was taken without an id",
    880019: "slow answers to heartbeats lose no lease",
    880057: "a record under the lease of a promise that fired",
    3000240: "an offer that waits is not put off by the next",
    5000141: "a create of which nobody heard came after its own deadline",
    5000347: "a last lease that ended some time after it could",
    5000326: "a promise has more listeners than a step drains",
    5000640: "a wait of a script may end before what it waits for is asked for",
    5001106: "a claim that is given up is granted before its server knows",
    216659469: "heartbeats queue up where a commit takes one request",
    906: "what fired while it could overlap is in the way of what may not",
    780024: "what waits in line was fired by a backfill",
    5200021: "what may overlap leaves what fired before it behind",
    5300003: "a backfill fired before the schedule did",
    5300050: "a claim that ended in a fault is not known to who leaves",
    5400116: "a schedule fired twice before anybody looked",
    5500042: "a server that stops ends the waits of claims",
    80127377: "a search shows who was woken by a deadline that nobody saw stored",
    154550066: "when a dead letter was replayed, only a later deadline shows",
    5000095: "an earlier take of a bucket may be answered later",
}


@pytest.mark.parametrize("seed", FOUND, ids=[f"{seed}: {what}" for seed, what in FOUND.items()])
def test_a_seed_that_once_broke(seed: int) -> None:
    """It holds now."""
    assert run_seed(seed, TICKS).broken is None
