"""What the linearizability checker asks of a sequential model, and two small ones to check it by."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from kept.check.history import Answer, Operation

JsonObject: TypeAlias = dict[str, Any]
StateT = TypeVar("StateT", bound=Hashable)

FOREVER = 9_007_199_254_740_991


class Part(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An operation, or the share of one that concerns one component. `keys` are the records that it
    names: parts that share one are judged together.

    `index` is the operation's place in the history; `earliest` and `latest` bound the server's
    instant (ms) at which it takes effect; `instants` are those that the history itself shows for
    what it names: its own answer's first, or for an unknown outcome everybody's. What
    waits for something to happen is likely answered right after that. A witness stands for what an
    answer tells of a step that nobody asked for, and is no operation itself.
    """

    index: int
    operation: Operation
    kind: str
    data: JsonObject
    answer: Answer | None
    keys: tuple[str, ...]
    earliest: int = 0
    latest: int = FOREVER
    instants: tuple[int, ...] = ()
    request_id: str | None = None
    waits: bool = False
    is_witness: bool = False


class Setting(NamedTuple):
    """Everything that a model is to judge: one component's parts, and the keys that they name."""

    keys: frozenset[str]
    parts: Sequence[Part]


class SequentialModel(Protocol[StateT]):
    """A machine that does one thing at a time. Its states are immutable, and equal where nothing
    that follows could tell them apart but their time, of which the earlier is never worse."""

    def parts(self, operations: Sequence[Operation], skew_ms: float | None) -> Iterable[Part]:
        """The operations as parts; those that need no judging are left out."""

    def limitation(self, setting: Setting) -> str | None:
        """Why the model cannot judge a component, if so."""

    def initial(self, setting: Setting) -> StateT:
        """The state before everything."""

    def successors(self, state: StateT, part: Part) -> Iterator[StateT]:
        """The states that the part may leave, likely ones first; none where its answer does not
        fit. Without an answer, any effect that it can have. Raises `Undecided`."""

    def is_unchanged(self, before: StateT, after: StateT) -> bool:
        """Whether nothing but the time has moved on."""

    def stays_idle(self, part: Part) -> bool:
        """Whether the part, where it fits and changes nothing, changes nothing later either."""

    def time(self, state: StateT) -> int:
        """The instant (ms) of the latest step; 0 where time does not matter."""

    def may_swap(self, states: tuple[StateT, StateT, StateT], first: Part, second: Part) -> bool:
        """Whether `second` and then `first`, whose outcome is unknown, explain everything that
        `first` and then `second` do. `states` are those before, between and after."""

    def expected(self, state: StateT, part: Part) -> str:
        """What the part would have been answered instead, for people."""

    def show(self, state: StateT) -> JsonObject:
        """The state as JSON, for people."""


class Undecided(Exception):
    """The model gives up on a component; the text says why."""


class RegisterModel:
    """Registers by name: `read {id}`, `write {id, value}`, `cas {id, old, new}` (409 if not old)."""

    def parts(self, operations: Sequence[Operation], skew_ms: float | None) -> Iterable[Part]:
        return [
            Part(index, each, each.kind, each.data, each.answer, (str(each.data["id"]),))
            for index, each in enumerate(operations)
        ]

    def limitation(self, setting: Setting) -> str | None:
        return None

    def initial(self, setting: Setting) -> tuple[Any]:
        return (None,)

    def successors(self, state: tuple[Any], part: Part) -> Iterator[tuple[Any]]:
        after, answer = self._apply(state, part)
        if part.answer is None or part.answer == answer:
            yield after

    def is_unchanged(self, before: tuple[Any], after: tuple[Any]) -> bool:
        return before == after

    def stays_idle(self, part: Part) -> bool:
        # What is there already may be written again after something else.
        return part.kind != "write"

    def time(self, state: tuple[Any]) -> int:
        return 0

    def may_swap(
        self, states: tuple[tuple[Any], tuple[Any], tuple[Any]], first: Part, second: Part
    ) -> bool:
        return False

    def expected(self, state: tuple[Any], part: Part) -> str:
        answer = self._apply(state, part)[1]
        return f"status {answer.status}, {answer.data!r}"

    def show(self, state: tuple[Any]) -> JsonObject:
        return {"value": state[0]}

    @staticmethod
    def _apply(state: tuple[Any], part: Part) -> tuple[tuple[Any], Answer]:
        match part.kind:
            case "read":
                return state, Answer(200, state[0])
            case "write":
                return (part.data["value"],), Answer(200)
            case "cas" if state[0] == part.data["old"]:
                return (part.data["new"],), Answer(200)
            case "cas":
                return state, Answer(409)
        raise ValueError(f"no kind of a register: {part.kind}")


class OnceModel(RegisterModel):
    """Write-once slots, the shape of a promise: `create {id}`, `settle {id, value}`, `get {id}`.

    create and settle are idempotent and answer what is there; 404 before the create.
    """

    @staticmethod
    def _apply(state: tuple[Any], part: Part) -> tuple[tuple[Any], Answer]:
        match part.kind, state[0]:
            case "create", None:
                return ("pending",), Answer(200, "pending")
            case "get" | "settle", None:
                return state, Answer(404)
            case "settle", "pending":
                return (part.data["value"],), Answer(200, part.data["value"])
            case (("create" | "get" | "settle"), _):
                return state, Answer(200, state[0])
        raise ValueError(f"no kind of a slot: {part.kind}")
