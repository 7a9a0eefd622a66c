"""What broke in a run, in a form that runs can be compared by and pages be made from."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from kept.check.incident import Breakage
from kept.check.monitor import MalformedChangesError, PropertyViolated, ShadowDiffersError
from kept.check.state import State
from kept.protocol.storage import Changes

JsonObject: TypeAlias = dict[str, Any]

UNNAMED: Final = {
    ShadowDiffersError: "the store holds what the steps wrote",
    MalformedChangesError: "changes are well made",
}
LIVENESS: Final = "liveness"
ASSERTIONS: Final = "assertions hold"


class Broken(AssertionError):
    """Something that must be true is not. `oracle` names what."""

    def __init__(self, oracle: str, why: str) -> None:
        super().__init__(f"{oracle}: {why}")
        self.oracle = oracle
        self.why = why


class BrokenStep(NamedTuple):
    """A step of the machine after which something was false. `records` is what it touched, and what
    the error names: what was stored by id, before and after, as JSON."""

    error: AssertionError
    process: str
    name: str
    records: JsonObject


def breakage_of(
    error: Exception, at: float, process: str, step: BrokenStep | None = None
) -> Breakage:
    """What an error that ended a run says."""
    named = step if step is not None and step.error is error else None
    return Breakage(
        oracle=_oracle(error),
        why=_why(error),
        at=at,
        process=process,
        ids=error.ids if isinstance(error, PropertyViolated) else (),
        step=named.name if named else "",
        records=named.records if named else {},
    )


def broken_step(
    error: AssertionError, process: str, before: State, name: str, changes: Changes
) -> BrokenStep:
    """A step that was wrong, seen from the state that it was taken back to."""
    ids = [*(error.ids if isinstance(error, PropertyViolated) else ())]
    ids += sorted({*changes.promises, *changes.tasks} - {*ids})
    records: JsonObject = {}
    for id in ids:
        promise, task = before.promises.get(id), before.tasks.get(id)
        stored = {"promise": promise, "task": task}
        made = {
            "promise": changes.promises.get(id, promise),
            "task": changes.tasks.get(id, task),
        }
        records[id] = msgspec.to_builtins({"before": stored, "after": made})
    return BrokenStep(error, process, name, records)


def _oracle(error: Exception) -> str:
    """The name of what is broken: the same in every run in which it breaks."""
    if isinstance(error, Broken):
        return error.oracle
    if isinstance(error, PropertyViolated):
        return error.name
    if not isinstance(error, AssertionError):
        return "the simulation moves on"
    return UNNAMED.get(type(error), ASSERTIONS)


def _why(error: Exception) -> str:
    if isinstance(error, PropertyViolated):
        return f"{error.why} (at {error.now} after {error.step})"
    return str(error).removeprefix(f"{_oracle(error)}: ")
