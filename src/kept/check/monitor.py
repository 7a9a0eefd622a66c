"""Watches every machine step and raises where a named property is false.

Theory of operation: the monitor keeps a shadow `State` of each tenant, fed by nothing but the
changes of the steps. After each step it evaluates the step properties on what the step touched, the
state properties on that and its neighbours, and every so often the whole state. `compare` holds the
shadow against what a store really has, which finds writes that were lost or that no step made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias, TypeVar

from kept.check.properties import (
    ALL_NAMES,
    CONFIG_PROPERTIES,
    INTERNAL_STEP_PROPERTIES,
    STATE_PROPERTIES,
    STEP_PROPERTIES,
    ConfigScope,
    Property,
    StateScope,
    StepScope,
    Violation,
)
from kept.check.state import Delta, State
from kept.protocol.addresses import BASE_SCHEMES
from kept.protocol.limits import DEFAULT_RETRY_TIMEOUT_MS
from kept.protocol.storage import DEFAULT_TENANT, Changes, Dump

# Steps after which the whole state is evaluated.
DEFAULT_WHOLE_EVERY_STEPS: Final = 1_000
# Steps that can be taken back: more than any one commit holds.
MAX_UNDO_STEPS: Final = 200_000
# Its `now` is the instant that it fires, which may be long past (‡ in the catalogue).
OCCURRENCE: Final = "schedule.fire"
RESET: Final = "debug.reset"

ScopeT = TypeVar("ScopeT", StateScope, StepScope, ConfigScope)
Check: TypeAlias = tuple[str, Callable[[ScopeT], Iterator[Violation]]]
Parts: TypeAlias = list[tuple[str, list[Check[ScopeT]]]]


class PropertyViolated(AssertionError):
    """A named property is false. `now` is the reading (ms) of the step, `step` the step's kind."""

    def __init__(
        self, name: str, ids: tuple[str, ...], now: int, step: str, why: str, tenant: str = ""
    ) -> None:
        super().__init__(f"{name}: {', '.join(ids)} at {now} after {step}: {why} [{tenant}]")
        self.name = name
        self.ids = ids
        self.now = now
        self.step = step
        self.why = why
        self.tenant = tenant


class MalformedChangesError(AssertionError):
    """A step's changes break the contract of `Changes`: what they call new is there already, what
    they replace is not, or an edge leaves from a record that does not exist."""


class ShadowDiffersError(AssertionError):
    """A store does not hold what the steps wrote."""


class _Taken(NamedTuple):
    """A step that can be taken back."""

    tenant: str
    clock: int
    deltas: tuple[Delta, ...]


class Monitor:
    """A `StepObserver` that evaluates the named properties.

    `retry_timeout_ms` is the engine's, `schemes` those of its transports. The whole state is
    evaluated after every `whole_every` steps. Raises `PropertyViolated`; the step that made a
    property false is then taken back. An engine answers that with a 500 and goes on, so the first
    error is kept, and `raise_first`, `check_everything` and `compare` raise it again.
    """

    def __init__(
        self,
        *,
        retry_timeout_ms: int = DEFAULT_RETRY_TIMEOUT_MS,
        schemes: frozenset[str] = BASE_SCHEMES,
        whole_every: int = DEFAULT_WHOLE_EVERY_STEPS,
    ) -> None:
        self._schemes = schemes
        self._whole_every = whole_every
        self._states: dict[str, State] = {}
        self._clocks: dict[str, int] = {}
        self._taken: deque[_Taken] = deque(maxlen=MAX_UNDO_STEPS)
        self._taken_count = 0
        self._first_error: AssertionError | None = None
        self._evaluated_count = 0
        self._reached = dict.fromkeys(sorted(ALL_NAMES), 0)
        self._on_state = _by_part(STATE_PROPERTIES.values())
        self._on_step = _by_part(STEP_PROPERTIES.values())
        self._on_internal_step = _by_part(
            [*STEP_PROPERTIES.values(), *INTERNAL_STEP_PROPERTIES.values()]
        )
        config = ConfigScope(retry_timeout_ms)
        self._evaluate(_by_part(CONFIG_PROPERTIES.values()), config, (0, "start-up", ""))

    def state(self, tenant: str = DEFAULT_TENANT) -> State:
        """The shadow of a tenant's records: to be read, not changed."""
        state = self._states.get(tenant)
        if state is None:
            state = self._states[tenant] = State()
        return state

    @property
    def states(self) -> Mapping[str, State]:
        """The shadows of all tenants, in the order in which they appeared."""
        return self._states

    def begin(self, dump: Dump, now: int, tenant: str = DEFAULT_TENANT) -> None:
        """Starts from what a store holds at `now` (ms) instead of from nothing."""
        self._states[tenant] = State.from_dump(dump)
        self._clocks[tenant] = now
        self._whole(tenant, "start-up")

    def step(self, tenant: str, now: int, name: str, internal: bool, changes: Changes) -> None:  # noqa: FBT001
        """Evaluates a step; see `StepObserver`."""
        state = self.state(tenant)
        clock = self._clocks.get(tenant, now)
        # Occurrences have instants of their own; the state is the real now's.
        state_now = max(clock, now) if name == OCCURRENCE else now
        self._clocks[tenant] = state_now
        deltas = _applied(state, name, changes)
        self._taken.append(_Taken(tenant, clock, deltas))
        self._taken_count += 1
        try:
            # Properties look at what a step touched: where that is nothing, none has anything to see.
            if deltas:
                scope = StepScope(now, name, state, deltas[-1], internal=internal)
                self._check(tenant, now, state_now, scope)
            self._evaluated_count += 1
            if self._evaluated_count % self._whole_every == 0:
                self._whole(tenant, name)
        except AssertionError as error:
            self._first_error = self._first_error or error
            self.rollback(self._taken_count - 1)
            raise

    def mark(self) -> int:
        """A point to go back to."""
        return self._taken_count

    def rollback(self, mark: int) -> None:
        """All steps since `mark` did not happen."""
        while self._taken_count > mark:
            assert self._taken, f"more than {MAX_UNDO_STEPS} steps cannot be taken back"
            taken = self._taken.pop()
            self._taken_count -= 1
            for delta in reversed(taken.deltas):
                self._states[taken.tenant].undo(delta)
            self._clocks[taken.tenant] = taken.clock

    def raise_first(self) -> None:
        """Raises the first error of all steps again, if there was one."""
        if self._first_error is not None:
            raise self._first_error

    def check_everything(self) -> None:
        """Evaluates the state properties on the whole state of every tenant, after `raise_first`."""
        self.raise_first()
        for tenant in sorted(self._states):
            self._whole(tenant, "everything")

    def reached(self) -> dict[str, int]:
        """How often the guard of each property held, by name."""
        return dict(self._reached)

    def unreached(self) -> list[str]:
        """The properties that have checked nothing: their guard never held."""
        return [name for name, count in self._reached.items() if not count]

    def compare(self, dump: Dump, tenant: str = DEFAULT_TENANT) -> None:
        """Raises `ShadowDiffersError` unless a store's dump is what the steps wrote, after
        `raise_first`."""
        self.raise_first()
        shadow = self.state(tenant).dump()
        for part in Dump.__struct_fields__:
            ours, theirs = getattr(shadow, part), getattr(dump, part)
            if ours != theirs:
                raise ShadowDiffersError(f"{tenant}: {part}: {_difference(ours, theirs)}")

    def _check(self, tenant: str, now: int, state_now: int, scope: StepScope) -> None:
        state, delta = scope.b, scope.delta
        parts = self._on_internal_step if scope.internal else self._on_step
        self._evaluate(parts, scope, (now, scope.name, tenant))
        _check_well_made(state, delta, f"{scope.name} at {now}")
        touched = StateScope.touched(state_now, state, delta, self._schemes)
        self._evaluate(self._on_state, touched, (state_now, scope.name, tenant))

    def _whole(self, tenant: str, name: str) -> None:
        now = self._clocks.get(tenant, 0)
        scope = StateScope(now, self.state(tenant), self._schemes)
        self._evaluate(self._on_state, scope, (now, name, tenant))

    def _evaluate(self, parts: Parts[ScopeT], scope: ScopeT, where: tuple[int, str, str]) -> None:
        reached = self._reached
        for part, checks in parts:
            if part and not getattr(scope, part):
                continue
            for name, check in checks:
                scope.reached = 0
                for violation in check(scope):
                    now, step, tenant = where
                    raise PropertyViolated(name, violation.ids, now, step, violation.why, tenant)
                if scope.reached:
                    reached[name] += scope.reached


def _by_part(properties: Iterable[Property[ScopeT]]) -> Parts[ScopeT]:
    parts: dict[str, list[Check[ScopeT]]] = {}
    for each in properties:
        parts.setdefault(each.part, []).append((each.name, each.check))
    return list(parts.items())


def _applied(state: State, name: str, changes: Changes) -> tuple[Delta, ...]:
    if not changes:
        return ()
    # A reset is not a step that removes things, but a new beginning.
    cleared = (state.clear(),) if changes.reset and name == RESET else ()
    return (*cleared, state.apply(changes))


def _check_well_made(state: State, delta: Delta, where: str) -> None:
    for what, former, born in (
        ("promise", delta.promises, delta.born_promises),
        ("task", delta.tasks, delta.born_tasks),
    ):
        for id, record in former.items():
            if (record is None) is not (id in born):
                found = "is new and is not said to be" if record is None else "is there already"
                raise MalformedChangesError(f"{what} {id} {found}, by {where}")
    for kind, edges, owners in (
        ("callback", delta.callbacks, state.promises),
        ("listener", delta.listeners, state.promises),
        ("resume", delta.resumes, state.tasks),
    ):
        for edge in edges.added:
            if edge.of not in owners:
                raise MalformedChangesError(f"{kind} of {edge.of}, which is not there, by {where}")


def _difference(ours: object, theirs: object) -> str:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in [*ours, *theirs]:
            mine, other = ours.get(key), theirs.get(key)
            if mine != other:
                return f"{key}: the steps wrote {mine}, the store has {other}"
    if isinstance(ours, set) and isinstance(theirs, set):
        return f"lost {sorted(ours - theirs)}, extra {sorted(theirs - ours)}"
    return f"the steps wrote {ours}, the store has {theirs}"
