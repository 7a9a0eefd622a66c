"""How a property is registered, and how its name, guard and findings are kept.

A property is a function that carries its name, looks at a scope and yields a `Violation` for each
thing that makes it false. It adds one to `scope.reached` each time its guard held: the part of the
statement before "then" or the colon. A property whose guard never held has checked nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from kept.check.properties.scopes import ConfigScope, StateScope, StepScope


class Violation(NamedTuple):
    """What makes a property false: the ids of the records concerned, and why."""

    ids: tuple[str, ...]
    why: str


class Kind(StrEnum):
    """What a property is a function of."""

    STATE = "state"
    STEP = "step"
    INTERNAL_STEP = "internal-step"
    CONFIG = "config"


ScopeT = TypeVar("ScopeT")

# The part of a scope that a property looks at: where that is empty, it need not be asked.
StatePart: TypeAlias = Literal[
    "everything", "promises", "tasks", "schedules", "messages", "callbacks", "listeners"
]
StepPart: TypeAlias = Literal[
    "everything",
    "promises",
    "tasks",
    "schedules",
    "messages",
    "new_executes",
    "new_unblocks",
    "callbacks",
    "callbacks_removed",
    "listeners",
    "listeners_removed",
]


class Property(NamedTuple, Generic[ScopeT]):
    """A registered property. `statement` is its docstring."""

    name: str
    kind: Kind
    part: str
    statement: str
    check: Callable[[ScopeT], Iterator[Violation]]


STATE_PROPERTIES: Final[dict[str, Property[StateScope]]] = {}
STEP_PROPERTIES: Final[dict[str, Property[StepScope]]] = {}
INTERNAL_STEP_PROPERTIES: Final[dict[str, Property[StepScope]]] = {}
CONFIG_PROPERTIES: Final[dict[str, Property[ConfigScope]]] = {}

StateCheck: TypeAlias = Callable[[StateScope], Iterator[Violation]]
StepCheck: TypeAlias = Callable[[StepScope], Iterator[Violation]]
ConfigCheck: TypeAlias = Callable[[ConfigScope], Iterator[Violation]]


def on_state(part: StatePart) -> Callable[[StateCheck], StateCheck]:
    """Registers a property of every state."""

    def register(check: StateCheck) -> StateCheck:
        STATE_PROPERTIES[check.__name__] = _property(Kind.STATE, part, check)
        return check

    return register


def on_step(part: StepPart) -> Callable[[StepCheck], StepCheck]:
    """Registers a property of every step."""

    def register(check: StepCheck) -> StepCheck:
        STEP_PROPERTIES[check.__name__] = _property(Kind.STEP, part, check)
        return check

    return register


def on_internal_step(part: StepPart) -> Callable[[StepCheck], StepCheck]:
    """Registers a property of every step that nobody asked for."""

    def register(check: StepCheck) -> StepCheck:
        INTERNAL_STEP_PROPERTIES[check.__name__] = _property(Kind.INTERNAL_STEP, part, check)
        return check

    return register


def on_config(check: ConfigCheck) -> ConfigCheck:
    """Registers a property of the settings, checked at start-up."""
    CONFIG_PROPERTIES[check.__name__] = _property(Kind.CONFIG, "", check)
    return check


def _property(
    kind: Kind, part: str, check: Callable[[ScopeT], Iterator[Violation]]
) -> Property[ScopeT]:
    statement = check.__doc__
    assert statement, f"{check.__name__} states nothing"
    return Property(check.__name__, kind, part, statement, check)
