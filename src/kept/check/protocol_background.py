"""What the background may have done before a part (protocol A5, B3).

Deadlines, expired leases and schedules act by themselves, late as they like: an
expired lease that was not reaped still holds. So before any part, any of the steps that are due by
then may have been taken, or none. A step only matters to who names its records, or is woken by them,
so it is tried when such a part comes, and not before: until then it stays due, and steps of other
records do not mind the order. Step 2 (listeners) and step 5 (messages) show in no answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from kept.check.model import queues
from kept.check.model.schedules import MAX_INSTANTS_PER_STEP, fire, next_instant
from kept.check.model.state import State, is_live, settle_by_deadline
from kept.check.protocol_cancellations import BackgroundStep, Cancellations
from kept.check.protocol_names import schedule_key
from kept.check.protocol_parts import SEEN
from kept.check.sequential import Part, Undecided
from kept.check.snapshots import Snapshot, Workspace

# States that the background may reach before one part; more, and the component is not judged.
MAX_BACKGROUND_STATES: Final = 2_000
# They show a promise and nothing of its task.
PROMISE_READS: Final = frozenset({"promise.get", "promise.wait", "promise.seen"})


class Budget:
    """How many steps of the model, those of the background included, one component may cost."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._left = steps

    def renew(self) -> None:
        """Another component, with a budget of its own."""
        self._left = self._steps

    def spend(self) -> None:
        """Raises Undecided where it is spent."""
        self._left -= 1
        if self._left < 0:
            raise Undecided(f"gave up after {self._steps} steps of the model")


class Background:
    """The steps that nobody asks for. `shown` has for each promise the instants that anybody was
    told: they have no other witness."""

    def __init__(
        self, shown: Mapping[str, set[int]], cancellations: Cancellations, budget: Budget
    ) -> None:
        self._shown = shown
        self._cancellations = cancellations
        self._budget = budget

    def states(self, state: Snapshot, part: Part, time: int) -> Iterator[Snapshot]:
        """The state, and those that the background may have made of it by `time`."""
        yield state
        if state.next_step > time and not state.spreads:
            return
        seen = {state}
        waiting = deque(seen)
        while waiting:
            before = waiting.popleft()
            for step in self._due(before, part, time):
                self._budget.spend()
                workspace = Workspace(before)
                step(workspace.state)
                after = workspace.snapshot(before.time if part.kind in SEEN else time)
                if after in seen:
                    continue
                if len(seen) >= MAX_BACKGROUND_STATES:
                    raise Undecided(f"more than {MAX_BACKGROUND_STATES} states by background steps")
                seen.add(after)
                waiting.append(after)
                yield after

    def given_up_at(self, state: Snapshot, part: Part) -> Iterator[int]:
        """When a last lease ended that the part finds over, as far as anybody was told: not before
        that, whatever else would do."""
        for id in part.keys:
            task = state.tasks.get(id)
            if task is None or task["state"] != "acquired":
                continue
            if queues.is_exhausted(state.promises[id]["tags"], task["failures"] + 1):
                yield from (at for at in self._shown.get(id, ()) if at >= task["expiresAt"])

    def deadlines_to_come(self, state: Snapshot, part: Part) -> Iterator[int]:
        """Of what schedules have fired by then, although nobody had to know of it before."""
        for id, schedule in state.schedules.items():
            if schedule_key(id) not in part.keys:
                continue
            instant = schedule["nextRunAt"]
            for _ in range(MAX_INSTANTS_PER_STEP):
                if instant > part.latest:
                    break
                yield instant + schedule["promiseTimeout"]
                instant = next_instant(schedule["cron"], instant)

    def _due(self, state: Snapshot, part: Part, time: int) -> Iterator[BackgroundStep]:
        """Steps that are due by `time` and that the part could notice."""
        if part.is_witness:
            yield from self._due_before_a_witness(state, part, time)
            return
        if part.kind in PROMISE_READS:
            # What is canceled has a witness then.
            yield from self._ends_of_leases(state, set(part.keys), time, only_last=True)
            yield from _instants_of_schedules(state, time)
            return
        named = _noticed(state, part)
        for id, awaiters in state.promises.awaited.items():
            promise = state.promises[id]
            is_overdue = promise["state"] == "pending" and promise["timeoutAt"] <= time
            if is_overdue and not named.isdisjoint(awaiters):
                # As early as it can be: who is woken is due from then on.
                yield partial(_store_deadline, id=id, now=max(promise["timeoutAt"], state.time))
        yield from self._ends_of_leases(state, named, time)
        yield from _instants_of_schedules(state, time)
        yield from self._cancellations.due(state, part, named, time)

    def _due_before_a_witness(
        self, state: Snapshot, part: Part, time: int
    ) -> Iterator[BackgroundStep]:
        """By which the promise may come to be canceled: above it, or by halting its task."""
        id = part.data["id"]
        yield from self._cancellations.due(state, part, {id}, time)
        if state.promises[id]["tags"].get("kept:exhausted") == "halt":
            yield from self._ends_of_leases(state, {id}, time, only_last=True)

    def _ends_of_leases(
        self, state: Snapshot, ids: set[str], time: int, *, only_last: bool = False
    ) -> Iterator[BackgroundStep]:
        """Of those that are over, or only of those that end the work."""
        for id in sorted(ids & state.tasks.keys()):
            task, promise = state.tasks[id], state.promises[id]
            is_expired = task["state"] == "acquired" and task["expiresAt"] <= time
            if not is_expired or not is_live(promise, task["expiresAt"]):
                continue
            if only_last and not queues.is_exhausted(promise["tags"], task["failures"] + 1):
                continue
            for at in self._instants_of_expiry(state, id, time):
                yield partial(queues.expire_lease, id=id, now=at)

    def _instants_of_expiry(self, state: Snapshot, id: str, time: int) -> list[int]:
        """When a lease may have ended, as far as it matters: a last one leaves its instant, which
        lies before the promise's deadline, however long after that somebody looks, and maybe before
        the latest step of other records."""
        task, promise = state.tasks[id], state.promises[id]
        if not queues.is_exhausted(promise["tags"], task["failures"] + 1):
            at = max(task["expiresAt"], state.time)
            return [at] if is_live(promise, at) else []
        shown = self._shown.get(id, ())
        told = sorted(at for at in shown if task["expiresAt"] <= at <= time)
        return [at for at in (*told, time) if is_live(promise, at)]


def _store_deadline(state: State, *, id: str, now: int) -> None:
    settle_by_deadline(state, state.promises[id], now)


def _instants_of_schedules(state: Snapshot, time: int) -> Iterator[BackgroundStep]:
    for id, schedule in state.schedules.items():
        if schedule["nextRunAt"] <= time:
            yield partial(_fire_once, id=id)


def _fire_once(state: State, *, id: str) -> None:
    schedule = state.schedules[id]
    fire(state, schedule, schedule["nextRunAt"])


def _noticed(state: Snapshot, part: Part) -> set[str]:
    """What the part names, who has the keys that it names, and whoever those wait for, directly or
    not."""
    found = set(part.keys)
    found.update(state.keys[name]["holder"] for name in part.keys if name in state.keys)
    growing = True
    while growing:
        growing = False
        for id, awaiters in state.promises.awaited.items():
            if id not in found and not found.isdisjoint(awaiters):
                found.add(id)
                growing = True
    return found
