"""All bugs of the zoo, floor by floor."""

from __future__ import annotations

from typing import Final

from kept.sim.zoo.around import AROUND
from kept.sim.zoo.bug import Bug
from kept.sim.zoo.cancellations import CANCELLATIONS
from kept.sim.zoo.engine import ENGINE
from kept.sim.zoo.leases import LEASES
from kept.sim.zoo.promises import PROMISES
from kept.sim.zoo.retention import RETENTION
from kept.sim.zoo.schedules import SCHEDULES
from kept.sim.zoo.sdk import SDK
from kept.sim.zoo.tenants import TENANTS

ZOO: Final[tuple[Bug, ...]] = tuple(
    bug
    for part in (
        LEASES,
        PROMISES,
        SCHEDULES,
        CANCELLATIONS,
        RETENTION,
        TENANTS,
        ENGINE,
        AROUND,
        SDK,
    )
    for bug in part.bugs
)
BY_NAME: Final = {bug.name: bug for bug in ZOO}
