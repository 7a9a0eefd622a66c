"""Is there one order of a history's operations that explains every answer?

The search is Wing and Gong's with Lowe's memoisation: depth first, an operation may come next if no
other that is still missing returned before it was invoked, and no pair of (operations done, state)
is looked at twice. Added are:

- A history is cut into components, operations that name a record in common, and each is judged
  alone: linearizability is local.
- An operation of unknown outcome never has to come, and comes at any time after its invocation, or
  until it is known to be over. It is tried after all others, and only right before something that
  could notice it: where two steps do not touch each other, only one of their two orders is looked at.
- An operation that changes nothing, and fits here, is taken at once and nothing else is tried, if it
  would change nothing later either: any order in which it comes later is also one in which it comes
  now. As the states know a time, this holds only if no other operation could need an earlier instant
  than it.

The verdict is `linearizable`, `not linearizable`, or `unknown`: the budget of steps ran out, or the
history holds what the model does not know. A violation in any component makes the whole history not
linearizable; otherwise one unknown component makes it unknown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from enum import Enum
from typing import Any, Final, Generic

import msgspec

from kept.check.history import History, Operation
from kept.check.sequential import (
    FOREVER,
    JsonObject,
    Part,
    SequentialModel,
    Setting,
    StateT,
    Undecided,
)

DEFAULT_BUDGET_STEPS: Final = 2_000_000
# States beside each other in an explanation of why an operation does not fit.
MAX_EXPLANATIONS: Final = 4


class Verdict(Enum):
    """What the checker found."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"


class ComponentResult(msgspec.Struct, kw_only=True):
    """The verdict on one component. Operations are named by their place in the history.

    `order` is a linearization: of everything, or where there is none, of the longest prefix that
    has one, which ends before the return of `first` (the first operation that fits nowhere).
    `state` is what that order leaves, `reason` what would have fitted or what was not judged.
    """

    keys: list[str]
    operations: list[int]
    verdict: Verdict
    steps: int = 0
    order: list[int] = []
    first: int | None = None
    state: JsonObject = {}
    reason: str = ""


class Result(msgspec.Struct, kw_only=True):
    """The verdict on a history. `skipped` counts operations, by kind, that are not judged."""

    verdict: Verdict
    components: list[ComponentResult]
    skipped: dict[str, int] = {}

    @property
    def steps(self) -> int:
        """Steps of the search, over all components."""
        return sum(component.steps for component in self.components)

    @property
    def violations(self) -> list[ComponentResult]:
        """Components that are not linearizable, the earliest first."""
        return self._with(Verdict.NOT_LINEARIZABLE)

    @property
    def undecided(self) -> list[ComponentResult]:
        """Components about which nothing can be said."""
        return self._with(Verdict.UNKNOWN)

    def _with(self, verdict: Verdict) -> list[ComponentResult]:
        found = [component for component in self.components if component.verdict is verdict]
        return sorted(found, key=lambda component: component.first or 0)


def check(
    history: History,
    model: SequentialModel[Any],
    *,
    budget_steps: int = DEFAULT_BUDGET_STEPS,
) -> Result:
    """Judges a history by a model, within `budget_steps` for each component."""
    parts = list(model.parts(history.operations, history.header.clock_skew_ms))
    components = [_judge(model, setting, budget_steps) for setting in components_of(parts)]
    verdicts = {component.verdict for component in components}
    verdict = next(
        (each for each in (Verdict.NOT_LINEARIZABLE, Verdict.UNKNOWN) if each in verdicts),
        Verdict.LINEARIZABLE,
    )
    judged = {part.index for part in parts}
    skipped = Counter(
        operation.kind for index, operation in enumerate(history.operations) if index not in judged
    )
    return Result(verdict=verdict, components=components, skipped=dict(skipped))


def components_of(parts: Sequence[Part]) -> list[Setting]:
    """The parts, gathered by the records that they name in common."""
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while above[key] != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    for part in parts:
        for key in part.keys:
            above.setdefault(key, key)
            above[top(key)] = top(part.keys[0])
    gathered: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        gathered[top(part.keys[0])].append(part)
    of_each: defaultdict[str, set[str]] = defaultdict(set)
    for key in above:
        of_each[top(key)].add(key)
    return [Setting(frozenset(of_each[key]), members) for key, members in gathered.items()]


def _judge(model: SequentialModel[StateT], setting: Setting, budget_steps: int) -> ComponentResult:
    operations = sorted({part.index for part in setting.parts})
    try:
        limitation = model.limitation(setting)
        if limitation is not None:
            raise Undecided(limitation)
        result = _Search(model, setting, budget_steps).run()
    except Undecided as why:
        result = ComponentResult(keys=[], operations=[], verdict=Verdict.UNKNOWN, reason=str(why))
    result.keys = sorted(setting.keys)
    result.operations = operations
    return result


class _Node(Generic[StateT]):
    """A point of the search: what is done, in which order, and the state that it leaves.

    `low` is the first required part that is missing; `done` marks those after it that are not, and
    `tried` those of unknown outcome. `number` is that of the last part, if its outcome is unknown.
    `entered` is the latest invocation so far: what was over before it cannot come any more.
    """

    __slots__ = ("above", "done", "entered", "low", "number", "part", "state", "tried")

    def __init__(
        self,
        low: int,
        done: int,
        tried: int,
        state: StateT,
        above: _Node[StateT] | None = None,
        part: Part | None = None,
        number: int | None = None,
    ) -> None:
        self.low = low
        self.number = number
        self.done = done
        self.tried = tried
        self.state = state
        self.above = above
        self.part = part
        self.entered = -1
        if above is not None and part is not None:
            self.entered = max(above.entered, part.operation.invoked)

    def key(self) -> Hashable:
        """What is done of the required parts, and the state."""
        return self.low, self.done, self.state

    def order(self) -> list[int]:
        """The operations from the start to here."""
        found: list[int] = []
        node: _Node[StateT] | None = self
        while node is not None and node.part is not None:
            if not node.part.is_witness:
                found.append(node.part.index)
            node = node.above
        return found[::-1]


class _Search(Generic[StateT]):
    """Depth first over one component."""

    def __init__(self, model: SequentialModel[StateT], setting: Setting, budget_steps: int) -> None:
        self._model = model
        self._setting = setting
        ordered = sorted(setting.parts, key=lambda part: part.operation.invoked)
        self._required = [part for part in ordered if part.answer is not None]
        self._budget = budget_steps
        self._optional = [part for part in ordered if part.answer is None]
        self._spans = [
            (part.operation.invoked, _returned(part.operation)) for part in self._optional
        ]
        self._keys = [frozenset(part.keys) for part in self._required]
        self._invoked = [part.operation.invoked for part in self._required]
        self._returned = [_returned(part.operation) for part in self._required]
        # A likely order: by the instants that answers show, then by return.
        self._likely = [
            (_likely_instant(part), _returned(part.operation)) for part in self._required
        ]
        # For what is done and the state: the unknown that had been tried, the time, and what had
        # been entered.
        self._seen: dict[Hashable, list[tuple[int, int, int]]] = {}
        # The latest return that had to be waited for, who it was, and the nodes that stopped there.
        self._furthest = -1
        self._stopped_by: int | None = None
        self._stopped: list[_Node[StateT]] = []

    def run(self) -> ComponentResult:
        """Searches until an order is found, all have been looked at, or the budget is spent."""
        start = _Node(0, 0, 0, self._model.initial(self._setting))
        branches = [self._next(start)]
        steps = 0
        if not self._required:
            return self._result(Verdict.LINEARIZABLE, start, steps)
        while branches:
            node = next(branches[-1], None)
            if node is None:
                branches.pop()
                continue
            if node.low == len(self._required):
                return self._result(Verdict.LINEARIZABLE, node, steps)
            steps += 1
            if steps > self._budget:
                return self._gave_up(steps)
            if not self._is_seen(node):
                branches.append(self._next(node))
        return self._failed(steps)

    def _is_seen(self, node: _Node[StateT]) -> bool:
        """Whether a node was looked at from which everything is possible that is from this one:
        no later, with no more of the unknown tried, and with no other orders left out because of
        the last part."""
        key: Hashable = node.key()
        time = self._model.time(node.state)
        if any(
            tried & node.tried == tried and at <= time and entered <= node.entered
            for tried, at, entered in self._seen.get(key, ())
        ):
            return True
        if node.number is not None:
            assert node.above is not None
            above = node.above.state
            key = (key, node.number, time, above, self._model.time(above))
            if any(
                tried & node.tried == tried and entered <= node.entered
                for tried, _, entered in self._seen.get(key, ())
            ):
                return True
        self._seen.setdefault(key, []).append((node.tried, time, node.entered))
        return False

    def _next(self, node: _Node[StateT]) -> Iterator[_Node[StateT]]:
        """The nodes one step on, the likeliest first."""
        model, state = self._model, node.state
        enabled, bound = self._enabled(node)
        time = model.time(state)
        if any(time > self._required[index].latest for index in enabled):
            return  # One that is missing comes too late already.
        entered, tried, spans = node.entered, node.tried, self._spans
        before = [
            number
            for number in range(bisect_left(spans, (bound,)))
            if spans[number][1] > entered and not tried >> number & 1
        ]
        if before and enabled:
            # Likelier to matter: what names a record of the one that has to come soonest.
            awaited = self._keys[min(enabled, key=self._returned.__getitem__)]
            before.sort(key=lambda number: awaited.isdisjoint(self._optional[number].keys))
        for index in enabled:
            part = self._required[index]
            for after in model.successors(state, part):
                if node.number is not None and self._belongs_before(node, part, after):
                    continue
                following = self._with(node, index, after)
                yield following
                is_idle = model.is_unchanged(state, after) and model.stays_idle(part)
                if is_idle and self._is_earliest(following, node, before):
                    return
        for number in before:
            part = self._optional[number]
            for after in model.successors(state, part):
                if model.is_unchanged(state, after):
                    continue
                is_sorted = node.number is None or node.number < number
                if is_sorted or not self._belongs_before(node, part, after):
                    tried = node.tried | 1 << number
                    yield _Node(node.low, node.done, tried, after, node, part, number)

    def _belongs_before(self, node: _Node[StateT], part: Part, after: StateT) -> bool:
        """Whether the step of unknown outcome that led here may as well come after this one, so
        that this order need not be looked at beside the other."""
        assert node.above is not None
        assert node.part is not None
        assert node.number is not None
        if self._spans[node.number][1] < part.operation.invoked:
            return False
        states = (node.above.state, node.state, after)
        return self._model.may_swap(states, node.part, part)

    def _enabled(self, node: _Node[StateT]) -> tuple[list[int], float]:
        """Required parts that may come next, and the first return among those that are missing."""
        invoked, returned = self._invoked, self._returned
        bound = FOREVER
        stop = -1
        found: list[int] = []
        done = node.done
        for index in range(node.low, len(invoked)):
            if invoked[index] > bound:
                break
            if not done >> (index - node.low) & 1:
                found.append(index)
                if returned[index] < bound:
                    bound = returned[index]
                    stop = index
        if bound >= self._furthest:
            if bound > self._furthest:
                self._furthest, self._stopped_by = bound, stop
                self._stopped.clear()
            self._keep(node)
        if len(found) > 1:
            found.sort(key=self._likely.__getitem__)
        return found, bound

    def _keep(self, node: _Node[StateT]) -> None:
        """Nodes that stopped furthest, those with most done first."""
        self._stopped.append(node)
        if len(self._stopped) > MAX_EXPLANATIONS:
            self._stopped.sort(key=lambda each: each.done.bit_count() + each.low, reverse=True)
            self._stopped.pop()

    def _with(self, node: _Node[StateT], index: int, after: StateT) -> _Node[StateT]:
        done = node.done | 1 << (index - node.low)
        low = node.low
        while done & 1:
            done >>= 1
            low += 1
        return _Node(low, done, node.tried, after, node, self._required[index])

    def _is_earliest(
        self, following: _Node[StateT], node: _Node[StateT], before: list[int]
    ) -> bool:
        """Whether no part that is missing could need an earlier instant than the step just taken,
        and nothing of unknown outcome had to come before it.

        Invocations and earliest instants rise together, so the first required part is all that
        counts.
        """
        assert following.part is not None
        model, earliest = self._model, following.part.earliest
        if earliest > self._required[node.low].earliest:
            return False
        if model.time(following.state) > max(model.time(node.state), earliest):
            return False
        invoked = following.part.operation.invoked
        return all(
            self._optional[number].earliest >= earliest and self._spans[number][1] > invoked
            for number in before
        )

    def _result(self, verdict: Verdict, node: _Node[StateT], steps: int) -> ComponentResult:
        return ComponentResult(
            keys=[],
            operations=[],
            verdict=verdict,
            steps=steps,
            order=node.order(),
            state=self._model.show(node.state),
        )

    def _failed(self, steps: int) -> ComponentResult:
        assert self._stopped_by is not None
        part = self._required[self._stopped_by]
        self._stopped.sort(key=lambda each: each.done.bit_count() + each.low, reverse=True)
        result = self._result(Verdict.NOT_LINEARIZABLE, self._stopped[0], steps)
        result.first = part.index
        reasons = [self._model.expected(node.state, part) for node in self._stopped]
        result.reason = "; or ".join(dict.fromkeys(reasons))
        return result

    def _gave_up(self, steps: int) -> ComponentResult:
        best = max(self._stopped, key=lambda each: each.done.bit_count() + each.low)
        result = self._result(Verdict.UNKNOWN, best, steps)
        result.reason = f"gave up after {self._budget} steps"
        return result


def _returned(operation: Operation) -> int:
    return FOREVER if operation.returned is None else operation.returned


def _likely_instant(part: Part) -> int:
    """An instant that the answer shows and that may be its own; else its earliest."""
    for instant in part.instants:
        if part.earliest <= instant <= part.latest:
            return instant
    return part.latest if part.waits and part.latest < FOREVER else part.earliest
