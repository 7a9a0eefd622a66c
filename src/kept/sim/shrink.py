"""Makes a plan that fails smaller, as long as it fails with the same oracle.

Whole parts of the world go first, because each makes the next runs faster: time after the breakage,
faults, servers, workers, clients, programs and kinds. Then single strikes and single actions of
clients, by delta debugging. All that again until nothing more can go, or the budget is spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from kept.check.incident import Breakage
from kept.check.minimise import shorter_lists
from kept.sim import base_protocol
from kept.sim.breakage import LIVENESS
from kept.sim.plan import Plan
from kept.sim.programs import PROGRAM_NAMES
from kept.sim.requests import RAW_KINDS
from kept.sim.run import EMPTY_PASS, play_plan
from kept.sim.scripts import SCRIPTS

DEFAULT_RUNS: Final = 400
DEFAULT_SECONDS: Final = 120.0
# A world without peculiarities of its own, as far as it still fails.
PLAIN: Final[dict[str, object]] = {
    "store": "memory",
    "embedded": False,
    "overtaken": 0.0,
    "clock_spread_ms": 0,
    "drift": 0.0,
    "commit_seconds": (0.0, 0.0),
    "delay": (0.0005, 0.002),
}
# Of an oracle that waits an hour for something, most runs wait only so long.
SHORT_SETTLE_SECONDS: Final = 240
COUNTS: Final = ("clients", "workers", "servers")

# Told after each try: how many so far, the smallest plan that fails, and what is being taken away.
Progress: TypeAlias = Callable[[int, Plan, str], None]
Strike: TypeAlias = tuple[str, int]
Item = TypeVar("Item")

# What clients may do besides asking single requests, as plans name it.
ACTIVITIES: Final = (*PROGRAM_NAMES, base_protocol.FUNCTION, *SCRIPTS)


class _Spent(Exception):
    """The budget is spent."""


class Shrinker:
    """Shrinks one plan: `plan` is the smallest that fails so far, and `breakage` what breaks in it,
    None where nothing does. `clock` gives seconds, as a monotonic clock does."""

    def __init__(
        self,
        plan: Plan,
        clock: Callable[[], float],
        *,
        runs: int = DEFAULT_RUNS,
        seconds: float = DEFAULT_SECONDS,
        progress: Progress = lambda runs, plan, what: None,
    ) -> None:
        self.plan = plan
        self.breakage: Breakage | None = None
        self.runs = 0
        # Whether nothing more could be taken away, rather than the budget was spent.
        self.finished = False
        self._clock = clock
        self._deadline = clock() + seconds
        self._max_runs = runs
        self._progress = progress
        self._strikes: list[Strike] = []
        self._actions: list[str] = []

    def shrink(self) -> Plan:
        """The smallest plan found; `plan` as it was where it does not fail, or fails by being empty."""
        self._play(self.plan)
        if self.breakage is None or self.breakage.oracle == EMPTY_PASS:
            self.finished = True
        elif self.breakage.oracle == LIVENESS and self.plan.settle_seconds is None:
            self._shrink_impatiently()
        else:
            self._shrink()
        return self.plan

    def _shrink_impatiently(self) -> None:
        """An hour in which nothing happens takes long: a shorter one, if the result stands the hour."""
        start = self.plan, self.breakage
        self._play(self.plan.replace(settle_seconds=SHORT_SETTLE_SECONDS))
        self._shrink()
        if not self._play(self.plan.replace(settle_seconds=None)):
            self.plan, self.breakage = start
            self.finished = False

    def _shrink(self) -> None:
        try:
            before = None
            while before != self.plan:
                before = self.plan
                self._pass()
            self.finished = True
        except _Spent:
            pass

    def _pass(self) -> None:
        self._less_time()
        self._fewer_faults()
        self._fewer_machines()
        self._plainer()
        self._fewer_programs_and_kinds()
        self._fewer_actions()
        self._fewer_strikes()

    # -- one run

    def _try(self, plan: Plan, what: str) -> bool:
        """Whether a smaller plan fails in the same way; if so it is taken."""
        if plan == self.plan:
            return False
        if self.runs >= self._max_runs or self._clock() > self._deadline:
            raise _Spent
        self._progress(self.runs, self.plan, what)
        return self._play(plan)

    def _play(self, plan: Plan) -> bool:
        self.runs += 1
        outcome, world = play_plan(plan)
        found = outcome.breakage
        if found is None or (self.breakage is not None and found.oracle != self.breakage.oracle):
            return False
        self.plan, self.breakage = plan, found
        self._actions = world.actions
        self._strikes = [
            (name, n) for name, numbers in world.strikes.struck.items() for n in numbers
        ]
        return True

    def _mix(self, what: str, **changes: object) -> bool:
        mix = self.plan.mix.replace(**changes)
        return self._try(self.plan.replace(mix=mix), what)

    # -- what can go

    def _less_time(self) -> None:
        """Up to the breakage; of one that shows only after the last fault, half and half again."""
        assert self.breakage is not None
        needed = max(1, math.ceil(self.breakage.at))
        if needed < self.plan.ticks:
            self._try(self.plan.replace(ticks=needed), "time")
        while (half := self.plan.ticks // 2) and self._try(self.plan.replace(ticks=half), "time"):
            pass

    def _fewer_faults(self) -> None:
        names = list(self.plan.mix.faults)
        self._delta(names, self._with_faults, "faults")

    def _with_faults(self, names: list[str]) -> Plan:
        faults = {name: self.plan.mix.faults[name] for name in names}
        strikes = {name: some for name, some in self.plan.strikes.items() if name in faults}
        return self.plan.replace(mix=self.plan.mix.replace(faults=faults), strikes=strikes)

    def _fewer_machines(self) -> None:
        for role in COUNTS:
            count = getattr(self.plan.mix, role)
            for fewer in range(1, count):
                if self._mix(role, **{role: fewer}):
                    break

    def _plainer(self) -> None:
        for name, value in PLAIN.items():
            if getattr(self.plan.mix, name) != value:
                self._mix(name, **{name: value})

    def _fewer_programs_and_kinds(self) -> None:
        programs = list(ACTIVITIES if self.plan.programs is None else self.plan.programs)
        self._delta(programs, lambda some: self.plan.replace(programs=tuple(some)), "programs")
        kinds = list(RAW_KINDS if self.plan.kinds is None else self.plan.kinds)
        self._delta(kinds, lambda some: self.plan.replace(kinds=tuple(some)), "kinds")

    def _fewer_actions(self) -> None:
        actions = list(self._actions)
        self._delta(actions, lambda some: self.plan.replace(actions=tuple(some)), "actions")

    def _fewer_strikes(self) -> None:
        strikes = list(self._strikes)
        self._delta(strikes, self._with_strikes, "strikes")

    def _with_strikes(self, strikes: list[Strike]) -> Plan:
        only: dict[str, tuple[int, ...]] = dict.fromkeys(self.plan.mix.faults, ())
        for name, number in strikes:
            only[name] = (*only[name], number)
        # A fault of which nothing strikes is none.
        faults = {name: rate for name, rate in self.plan.mix.faults.items() if only[name]}
        only = {name: only[name] for name in faults}
        return self.plan.replace(mix=self.plan.mix.replace(faults=faults), strikes=only)

    def _delta(self, items: list[Item], made: Callable[[list[Item]], Plan], what: str) -> None:
        """Leaves items out: all of them, else as many as possible."""
        if not items or self._try(made([]), what):
            return
        tries = shorter_lists(items)
        answer: bool | None = None
        while True:
            try:
                some = tries.send(answer) if answer is not None else next(tries)
            except StopIteration:
                return
            answer = self._try(made(some), what)
