"""Which faults a seed has, and how many: some seeds are gentle, some brutal (swarm testing).

A mix in which everything is possible hides what only a quiet world shows: a lost wake-up is repaired
by the next crash. So each fault is in about half of the mixes, and each mix draws its own rates.
"""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from kept.sim.bounds import draw_bounds

# Each fault that may be in a mix: the rates (per exchange or per commit) or the mean seconds between
# two of them, from mild to brutal.
SHARES: Final = {
    "refused": (0.002, 0.02, 0.1),
    "lost": (0.001, 0.01, 0.03),
    "broken_before": (0.002, 0.02, 0.08),
    "broken_after": (0.002, 0.02, 0.08),
    "duplicated": (0.01, 0.05, 0.2),
    "commit_fails": (0.002, 0.02, 0.1),
    "commit_unclear": (0.005, 0.05),
    "begin_fails": (0.005, 0.05),
    "load_fails": (0.001, 0.01),
    "save_fails": (0.001, 0.01),
    "scan_fails": (0.002, 0.02),
    "notice_lost": (0.05, 0.5),
}
PERIODS: Final = {
    "server_crash": (40.0, 15.0, 6.0),
    "worker_crash": (40.0, 15.0, 6.0),
    "client_crash": (60.0, 25.0),
    "crash_before_commit": (50.0, 20.0),
    "crash_after_commit": (50.0, 20.0),
    "partition": (50.0, 20.0),
    "server_stop": (60.0, 25.0),
    "worker_stop": (60.0, 25.0),
    "stall": (40.0, 15.0),
    "clock_jump": (60.0, 20.0),
    "store_outage": (90.0, 40.0),
    "disk_full": (90.0, 40.0),
    "disk_busy": (90.0, 40.0),
    "power_cut": (90.0, 40.0),
    "receiver_crash": (40.0, 15.0),
    "stream_break": (30.0, 8.0),
    "stream_stall": (60.0, 20.0),
}
STORES: Final = ("memory", "sqlite")
# Seconds that a message and either half of a commit may take, from fast to slow.
DELAYS: Final = ((0.0005, 0.002), (0.001, 0.02), (0.01, 0.3))
COMMITS: Final = ((0.0, 0.0), (0.001, 0.005), (0.005, 0.1))
SHARE_OF_FAULTS: Final = 0.5
# So many seeds have no fault at all: there, a step that runs twice is an error.
SHARE_OF_CALM: Final = 0.2
# Of those, some have workers that leave in good order.
SHARE_OF_GENTLE: Final = 0.2
SHARE_OF_EMBEDDED: Final = 0.25
SHARE_OF_SQLITE: Final = 0.5
# So many seeds have workers that keep few suspended workflows in memory, and replay often.
SHARE_OF_SMALL_CACHES: Final = 0.4
SMALL_CACHES: Final = (0, 1, 3)
# In so many seeds trees leave while others run.
SHARE_OF_RETENTION: Final = 0.15
RETENTIONS: Final = (20.0, 120.0)
# In so many seeds clients put and change schedules.
SHARE_OF_PLANS: Final = 0.5
# So many seeds have a second tenant.
SHARE_OF_TENANTS: Final = 0.25


class Mix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one seed's world is like. Times in seconds; `faults` are rates and periods by name."""

    servers: int
    workers: int
    clients: int
    # Workers that are sent their work; every second one by HTTP push.
    receivers: int
    # Suspended workflows that a worker keeps in memory; None: as many as it likes.
    cache: int | None
    delay: tuple[float, float]
    # The share of exchanges that take ten times as long and are overtaken by later ones.
    overtaken: float
    commit_seconds: tuple[float, float]
    # How far clocks are apart, and how much faster or slower each may run.
    clock_spread_ms: int
    drift: float
    # Callbacks of one process in any order, beyond what asyncio promises.
    shuffled: bool
    # Of `STORES`: what the disk holds.
    store: str
    # Workers have an engine of their own on the disk, and reach no server.
    embedded: bool
    lease_seconds: float
    faults: dict[str, float]
    # Constants of the system that are small here, by name.
    bounds: dict[str, int] = {}
    # How long what the SDK's programs leave stays, once it is settled; None: longer than any run.
    retention_seconds: float | None = None
    # Clients put, change, pause and delete schedules.
    plans: bool = False
    # There is a second tenant with the same ids.
    tenants: bool = False

    def replace(self, **changes: object) -> Mix:
        """The mix with other fields."""
        return msgspec.structs.replace(self, **changes)

    @property
    def calm(self) -> bool:
        """Whether nothing is meant to go wrong."""
        return not self.faults

    @property
    def gentle(self) -> bool:
        """Whether workers go, if they do, in good order only: then no lease runs out."""
        return self.faults.keys() <= {"worker_stop"}

    @property
    def prompt(self) -> bool:
        """Whether, besides, messages and commits are fast: then nothing may come late."""
        return self.calm and self.delay in DELAYS[:2] and self.commit_seconds in COMMITS[:2]


def draw_mix(seed: int) -> Mix:
    """The mix of a seed."""
    random = Random(f"{seed}/mix")
    faults: dict[str, float] = {}
    if random.random() >= SHARE_OF_CALM:
        for name, choices in (*SHARES.items(), *PERIODS.items()):
            if random.random() < SHARE_OF_FAULTS:
                faults[name] = random.choice(choices)
    troubled = bool(faults)
    if not troubled and random.random() < SHARE_OF_GENTLE:
        faults["worker_stop"] = random.choice((40.0, 15.0))
    servers = random.choice((1, 1, 2, 3))
    embedded = random.random() < SHARE_OF_EMBEDDED
    if servers == 1 and not embedded:
        faults.pop("notice_lost", None)
    mix = Mix(
        servers=servers,
        workers=random.choice((1, 2, 3)),
        clients=random.choice((1, 2, 3)),
        receivers=random.choice((1, 2, 2, 3)),
        cache=random.choice(SMALL_CACHES) if random.random() < SHARE_OF_SMALL_CACHES else None,
        delay=random.choice(DELAYS if troubled else (*DELAYS, *DELAYS[:2])),
        overtaken=random.choice((0.0, 0.05, 0.2)) if troubled else 0.0,
        commit_seconds=random.choice(COMMITS if troubled else (*COMMITS, *COMMITS[:2])),
        clock_spread_ms=random.choice((0, 50, 2_000)) if troubled else 0,
        drift=random.choice((0.0, 0.001, 0.02)) if troubled else 0.0,
        shuffled=False,
        store="sqlite" if random.random() < SHARE_OF_SQLITE else "memory",
        embedded=embedded,
        lease_seconds=random.choice((3.0, 8.0, 15.0)),
        faults=faults,
        bounds=draw_bounds(seed, calm=not troubled),
        plans=Random(f"{seed}/plans").random() < SHARE_OF_PLANS,
        tenants=Random(f"{seed}/tenants").random() < SHARE_OF_TENANTS,
    )
    if random.random() < SHARE_OF_RETENTION:
        return mix.replace(retention_seconds=random.choice(RETENTIONS))
    return mix
