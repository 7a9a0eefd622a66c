"""The verdict on the history of a run: is there one order that explains every answer?"""

from __future__ import annotations

from typing import Final

import msgspec

from kept.check.history import History
from kept.check.linearizability import Result, check
from kept.check.protocol_model import ProtocolModel

# For each component: most need few more than one for each operation.
BUDGET_STEPS: Final = 8_000
# What those cost: a step may be of many to try.
BUDGET_MODEL_STEPS: Final = 24_000
MAX_SHOWN_CHARACTERS: Final = 600
MAX_SHOWN_KEYS: Final = 3


class Judgement(msgspec.Struct, kw_only=True):
    """What the checker looked at. An unknown component is neither fine nor broken; `unknown` says
    of each how many operations it has, and why."""

    operations: int = 0
    components: int = 0
    largest: int = 0
    steps: int = 0
    unknown: list[str] = []
    skipped: dict[str, int] = {}
    # The first operation that fits nowhere, when it was answered (ms), and by which process it was asked.
    violation: str | None = None
    violated_at: float = 0.0
    violated_by: str = ""


def checked(history: History) -> Result:
    """What the checker finds within a bounded number of steps."""
    return check(history, ProtocolModel(BUDGET_MODEL_STEPS), budget_steps=BUDGET_STEPS)


def judge(history: History) -> Judgement:
    """Judges a whole history within a bounded number of steps."""
    result = checked(history)
    wrong = next((history.operations[each.first or 0] for each in result.violations), None)
    return Judgement(
        operations=len(history.operations) - sum(result.skipped.values()),
        components=len(result.components),
        largest=max((len(each.operations) for each in result.components), default=0),
        steps=result.steps,
        unknown=[
            f"{len(each.operations)} operations on {', '.join(each.keys[:MAX_SHOWN_KEYS])}: "
            f"{each.reason}"
            for each in result.undecided
        ],
        skipped=result.skipped,
        violation=_violation(history, result),
        violated_at=(wrong.returned_at or wrong.invoked_at) if wrong else 0.0,
        violated_by=wrong.client.partition("#")[0] if wrong else "",
    )


def _violation(history: History, result: Result) -> str | None:
    """The first operation that fits nowhere, and what would."""
    for violation in result.violations:
        assert violation.first is not None
        operation = history.operations[violation.first]
        answer = msgspec.json.encode(operation.answer).decode()
        asked = (
            f"{operation.kind} by {operation.client} {msgspec.json.encode(operation.data).decode()}"
        )
        return (
            f"{asked[:MAX_SHOWN_CHARACTERS]} was answered {answer[:MAX_SHOWN_CHARACTERS]}, and that "
            f"fits nowhere: {violation.reason[:MAX_SHOWN_CHARACTERS]}"
        )
    return None
