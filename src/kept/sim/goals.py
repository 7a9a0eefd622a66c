"""What came of the work that clients started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kept.check.state import State
from kept.errors import PromiseCanceledError, PromiseTimedOutError
from kept.protocol import tags as tag
from kept.protocol.records import Promise, PromiseState
from kept.protocol.storage import Dump
from kept.sdk import payload
from kept.sim.ledger import Boundary, Ledger
from kept.sim.programs import Program, purchases


class Goal(NamedTuple):
    """Started work that must come to one of its program's results."""

    id: str
    program: Program


class Goals:
    """All started work, and the verdict on each part of it."""

    def __init__(self, ledger: Ledger, boundary: Boundary, state: Callable[[], State]) -> None:
        self._ledger = ledger
        self._boundary = boundary
        self._state = state
        self._goals: dict[str, Goal] = {}
        # What has left, as it was (B6): results are right whether or not they are still there.
        self.departed: dict[str, Promise] = {}
        self._replays: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._goals)

    def __iter__(self) -> Iterator[Goal]:
        return iter(self._goals.values())

    def expect(self, id: str, program: Program) -> None:
        """Work was started, and that was acknowledged."""
        self._goals.setdefault(id, Goal(id, program))

    def replayed(self, id: str, new_id: str) -> None:
        """Work that had failed was replayed under a new id: now it succeeds."""
        goal = self._goals[id]
        self._replays[id] = new_id
        again = goal.program._replace(repair=None, errors=(), results=("repaired",))
        self.expect(new_id, again)

    def pending(self) -> list[Goal]:
        """Goals that have not been reached, replays of what failed among them."""
        promises = self._promises()
        return [
            goal
            for goal in self._goals.values()
            if (promise := promises.get(goal.id)) is None
            or promise.pending
            or (goal.program.repair is not None and goal.id not in self._replays)
        ]

    def _promises(self) -> dict[str, Promise]:
        return {**self.departed, **self._state().promises}

    def to_replay(self) -> list[Goal]:
        """Those that are given up and wait for somebody to replay them."""
        letters = self._state().dead_letters
        return [g for g in self.pending() if g.program.repair is not None and g.id in letters]

    def halted(self) -> list[Goal]:
        """Those that somebody may have halted and not let go on."""
        return [goal for goal in self.pending() if goal.program.halted]

    def check(self) -> None:
        """Each goal's promise holds a result that is right, and its effects have happened."""
        promises = self._promises()
        for goal in self._goals.values():
            problem = self._problem(promises[goal.id], goal)
            if problem is not None:
                why = f"{goal.id} ({goal.program}): {problem}"
                self._ledger.break_off("results are right", why)
        self._check_orphans(promises)
        problem = purchases.problem_of(promises, self._boundary)
        if problem is not None:
            self._ledger.break_off("canceled work cleans up", problem)

    def _problem(self, promise: Promise, goal: Goal) -> str | None:
        program = goal.program
        error = payload.outcome_error(promise.record())
        if isinstance(error, PromiseCanceledError) and program.canceled:
            return None
        if isinstance(error, PromiseTimedOutError) and program.timeout is not None:
            return None
        if error is not None and getattr(error, "type", "") not in program.errors:
            return repr(error)
        if error is None and (result := payload.decode(promise.value)) not in program.results:
            return f"it is {result!r}"
        for suffix in program.effects:
            if not self._boundary.applied(f"{goal.id}/{suffix}"):
                return f"its effect {suffix!r} never happened"
        for suffix, least in program.tries:
            if self._boundary.attempts[f"{goal.id}/{suffix}"] < least:
                return f"{suffix!r} was tried less than {least} times"
        return None

    def _check_orphans(self, promises: dict[str, Promise]) -> None:
        """What durable code called has ended when the code has returned (structured concurrency)."""
        for promise in promises.values():
            parent = promises.get(promise.parent or "")
            if parent is None or promise.target is None or parent.function is None:
                continue
            if promise.tags.get(tag.DETACHED) == "true":
                continue
            if parent.state in (PromiseState.RESOLVED, PromiseState.REJECTED) and promise.pending:
                why = f"{promise.id} is pending, {parent.id} is {parent.state}"
                self._ledger.break_off("nothing is left behind", why)

    def disturbed(self) -> list[str]:
        """The ids of work with which somebody interferes."""
        return [goal.id for goal in self._goals.values() if goal.program.disturbed]


def check_letters(ledger: Ledger, dump: Dump) -> None:
    """Each dead letter belongs to a task that is over or was halted, and counts its failures."""
    for id, letter in dump.dead_letters.items():
        promise, task = dump.promises.get(id), dump.tasks.get(id)
        if promise is None or task is None:
            ledger.break_off("dead letters name work", f"{id} does not exist")
        elif not letter.halted and promise.state is not PromiseState.REJECTED:
            ledger.break_off("dead letters name dead work", f"{id} is {promise.state}")
        elif letter.tags != promise.tags or letter.param != promise.param:
            ledger.break_off("dead letters keep what they need", f"{id}: {letter}, {promise}")
        elif letter.function != promise.tags.get(tag.FUNCTION):
            ledger.break_off("dead letters keep what they need", f"{id}: {letter.function}")
