"""How a step's case is written: a bad step and a good one, each (before, after[, name of the step])."""

from __future__ import annotations

from typing import Final, TypeAlias

from kept.check.state import State
from tests.unit.check.cases.records import (
    EXTERNAL,
    TARGETED,
    Step,
    StepCase,
    pending,
    resolved,
    state,
)

Move: TypeAlias = tuple[State, State] | tuple[State, State, str]

NOTHING: Final = state()
JOB: Final = pending(tags=TARGETED)
JOB_DONE: Final = resolved(tags=TARGETED)
# What a job waits for.
AWAITED: Final = pending("q", tags=EXTERNAL)
AWAITED_DONE: Final = resolved("q", tags=EXTERNAL)


def case(name: str, clause: str, bad: Move, good: Move) -> StepCase:
    return StepCase(name, clause, _step(bad, False), _step(good, False))


def internal_case(name: str, clause: str, bad: Move, good: Move) -> StepCase:
    """A case of background steps."""
    return StepCase(name, clause, _step(bad, True), _step(good, True))


def _step(move: Move, internal: bool) -> Step:  # noqa: FBT001
    name = move[2] if len(move) == 3 else "some.step"
    return Step(move[0], move[1], name, internal=internal)
