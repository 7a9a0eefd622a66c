"""The named properties: 95 of the specification, two on background steps alone, four of ours that
close what the base machine leaves open, and those of the extensions.

`STATE_PROPERTIES`, `STEP_PROPERTIES`, `INTERNAL_STEP_PROPERTIES` and `CONFIG_PROPERTIES` hold them
by name; `ALL_NAMES` is their union. Where we depart from one, `departures.py` says how far.
"""

from typing import Final

# Importing a family registers its properties.
from kept.check.properties import cancellation as cancellation
from kept.check.properties import consistent_state as consistent_state
from kept.check.properties import consistent_step_promises as consistent_step_promises
from kept.check.properties import consistent_step_tasks as consistent_step_tasks
from kept.check.properties import duplicates as duplicates
from kept.check.properties import internal as internal
from kept.check.properties import monotone as monotone
from kept.check.properties import ours as ours
from kept.check.properties import preserved as preserved
from kept.check.properties import queues as queues
from kept.check.properties import retention as retention
from kept.check.properties import well_formed as well_formed
from kept.check.properties import well_formed_promises as well_formed_promises
from kept.check.properties.registry import (
    CONFIG_PROPERTIES,
    INTERNAL_STEP_PROPERTIES,
    STATE_PROPERTIES,
    STEP_PROPERTIES,
    Kind,
    Property,
    Violation,
)
from kept.check.properties.scopes import ConfigScope, StateScope, StepScope

ALL_NAMES: Final = frozenset(
    [
        *STATE_PROPERTIES,
        *STEP_PROPERTIES,
        *INTERNAL_STEP_PROPERTIES,
        *CONFIG_PROPERTIES,
    ]
)

__all__ = [
    "ALL_NAMES",
    "CONFIG_PROPERTIES",
    "INTERNAL_STEP_PROPERTIES",
    "STATE_PROPERTIES",
    "STEP_PROPERTIES",
    "ConfigScope",
    "Kind",
    "Property",
    "StateScope",
    "StepScope",
    "Violation",
]
