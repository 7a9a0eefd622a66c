"""Cases for tasks that must move together with their promises: one row for each clause."""

from __future__ import annotations

from typing import Final

from kept.check.state import State
from kept.protocol.entries import Debounce, Entry, EntryKind
from kept.protocol.keys import keys_of
from kept.protocol.records import Delivery, Task, TaskState
from tests.unit.check.cases.records import (
    TARGETED,
    StepCase,
    acquired,
    fulfilled,
    halted,
    pending,
    state,
    suspended,
    timed_out,
    waiting,
)
from tests.unit.check.cases.steps import AWAITED, AWAITED_DONE, JOB, JOB_DONE, NOTHING, case

PULL: Final = Delivery.PULL
RESUMED: Final = [("p", "q")]
CALLED_BACK: Final = state(AWAITED_DONE, JOB, suspended(), callbacks=[("q", "p")])
WOKEN: Final = state(AWAITED_DONE, JOB, waiting(version=1), resumes=RESUMED)
DEBOUNCED: Final = pending(tags=TARGETED | {"kept:debounce": "k"})

# What may not follow: every other pair of different states may.
_RECORDS: Final = {
    TaskState.PENDING: waiting(version=1),
    TaskState.ACQUIRED: acquired(),
    TaskState.SUSPENDED: suspended(),
    TaskState.HALTED: halted(),
    TaskState.FULFILLED: fulfilled(),
}
_FORBIDDEN: Final = {
    "pending": ["suspended"],
    "acquired": [],
    "suspended": ["acquired"],
    "halted": ["acquired", "suspended"],
    "fulfilled": ["pending", "acquired", "suspended", "halted"],
}
_ALLOWED: Final = {
    "pending": ["acquired", "halted", "fulfilled"],
    "acquired": ["pending", "suspended", "halted", "fulfilled"],
    "suspended": ["pending", "halted", "fulfilled"],
    "halted": ["pending", "fulfilled"],
    "fulfilled": ["fulfilled"],
}


def _edges() -> list[StepCase]:
    """Each edge that is not admissible, beside one that is."""
    rows = []
    for start, ends in _FORBIDDEN.items():
        before = state(_RECORDS[TaskState(start)])
        for end in ends:
            after = state(_RECORDS[TaskState(end)])
            name = "consistent_task_state_edge_admissible"
            good = state(JOB, waiting()), state(JOB, acquired())
            rows.append(case(name, f"{start} to {end}", (before, after), good))
    return rows


# fmt: off
BIRTH: Final = [
    case("consistent_task_birth_couples_promise_birth", "no promise",
         (NOTHING, state(waiting())), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_couples_promise_birth", "an old promise",
         (state(JOB), state(JOB, waiting())), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_couples_promise_birth", "no target",
         (NOTHING, state(pending(), waiting())), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_couples_promise_birth", "settled, not fulfilled",
         (NOTHING, state(timed_out(tags=TARGETED), waiting())),
         (NOTHING, state(timed_out(tags=TARGETED), fulfilled(version=0)))),
    case("consistent_task_birth_couples_promise_birth", "fulfilled, not settled",
         (NOTHING, state(JOB, fulfilled(version=0))), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_couples_promise_birth", "pending with a version",
         (NOTHING, state(JOB, waiting(version=1))), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_couples_promise_birth", "fulfilled with a version",
         (NOTHING, state(timed_out(tags=TARGETED), fulfilled(version=1))),
         (NOTHING, state(timed_out(tags=TARGETED), fulfilled(version=0)))),
    case("consistent_task_birth_couples_promise_birth", "acquired without a version",
         (NOTHING, state(JOB, acquired(version=0))), (NOTHING, state(JOB, acquired()))),
    case("consistent_task_birth_couples_promise_birth", "born suspended",
         (NOTHING, state(JOB, suspended())), (NOTHING, state(JOB, acquired()))),
    case("consistent_task_birth_couples_promise_birth", "a target without a task",
         (NOTHING, state(JOB)), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_state", "resumes",
         (NOTHING, state(JOB, waiting(), resumes=RESUMED)), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_state", "pending for ever",
         (NOTHING, state(JOB, waiting(retry_at=None))), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_state", "pending with a lease",
         (NOTHING, state(JOB, waiting(pid="w"))), (NOTHING, state(JOB, waiting()))),
    case("consistent_task_birth_state", "fulfilled, not cleared",
         (NOTHING, state(fulfilled(retry_at=1))), (NOTHING, state(fulfilled()))),
    case("consistent_task_birth_state", "acquired without a version",
         (NOTHING, state(acquired(version=0))), (NOTHING, state(acquired()))),
    case("consistent_task_birth_state", "acquired by nobody",
         (NOTHING, state(acquired(pid=None))), (NOTHING, state(acquired()))),
    case("consistent_task_birth_state", "acquired without a length",
         (NOTHING, state(acquired(ttl=None))), (NOTHING, state(acquired()))),
    case("consistent_task_birth_state", "acquired without an end",
         (NOTHING, state(acquired(expires_at=None))), (NOTHING, state(acquired()))),
    case("consistent_task_birth_state", "acquired with a next try",
         (NOTHING, state(acquired(retry_at=1))), (NOTHING, state(acquired()))),
    case("consistent_task_birth_state", "born halted",
         (NOTHING, state(halted())), (NOTHING, state(waiting()))),
]

SETTLEMENT: Final = [
    case("consistent_task_fulfilment_needs_settlement", "the promise stays pending",
         (state(JOB, acquired()), state(JOB, fulfilled())),
         (state(JOB, acquired()), state(JOB_DONE, fulfilled()))),
    case("consistent_task_fulfilment_needs_settlement", "the promise was settled before",
         (state(JOB_DONE, acquired()), state(JOB_DONE, fulfilled())),
         (state(JOB, acquired()), state(JOB_DONE, fulfilled()))),
    case("consistent_task_fulfilment_needs_settlement", "no promise before",
         (state(acquired()), state(JOB_DONE, fulfilled())),
         (state(JOB, acquired()), state(JOB_DONE, fulfilled()))),
    case("consistent_task_fulfilment_needs_settlement", "no promise after",
         (state(JOB, acquired()), state(fulfilled())),
         (state(JOB, acquired()), state(JOB_DONE, fulfilled()))),
]

WAKING: Final = [
    case("consistent_wake_follows_callback_consumption", "the callback is still there",
         (CALLED_BACK,
          state(AWAITED_DONE, JOB, waiting(version=1), callbacks=[("q", "p")], resumes=RESUMED)),
         (CALLED_BACK, WOKEN)),
    case("consistent_wake_follows_callback_consumption", "there was no callback",
         (state(AWAITED_DONE, JOB, suspended()), WOKEN), (CALLED_BACK, WOKEN)),
    case("consistent_wake_follows_callback_consumption", "resumed by another",
         (CALLED_BACK, state(AWAITED_DONE, JOB, waiting(version=1), resumes=[("p", "r")])),
         (CALLED_BACK, WOKEN)),
    case("consistent_wake_follows_callback_consumption", "the awaited is gone",
         (CALLED_BACK, state(JOB, waiting(version=1), resumes=RESUMED)), (CALLED_BACK, WOKEN)),
    case("consistent_wake_follows_callback_consumption", "nobody cancelled",
         (state(JOB, suspended()), state(JOB, waiting(version=1)), "promise.settle"),
         (state(JOB, suspended()), state(JOB, waiting(version=1)), "promise.cancel")),
    case("consistent_task_wake_records_resume", "no resume",
         (CALLED_BACK, state(AWAITED_DONE, JOB, waiting(version=1))), (CALLED_BACK, WOKEN)),
    case("consistent_task_wake_records_resume", "due later",
         (CALLED_BACK, state(JOB, waiting(version=1, retry_at=101), resumes=RESUMED)),
         (CALLED_BACK, WOKEN)),
    case("consistent_task_wake_records_resume", "another version",
         (CALLED_BACK, state(JOB, waiting(version=2), resumes=RESUMED)), (CALLED_BACK, WOKEN)),
    case("consistent_task_wake_records_resume", "cancelled, due later",
         (CALLED_BACK, state(JOB, waiting(version=1, retry_at=101)), "promise.cancel"),
         (CALLED_BACK, state(JOB, waiting(version=1)), "promise.cancel")),
    case("consistent_suspension_registers_callback", "nothing will wake it",
         (state(AWAITED, acquired()), state(AWAITED, suspended())),
         (state(AWAITED, acquired()), state(AWAITED, suspended(), callbacks=[("q", "p")]))),
    case("consistent_suspension_registers_callback", "only what is settled would",
         (state(acquired()), state(AWAITED_DONE, suspended(), callbacks=[("q", "p")])),
         # The catalogue's ‡: the callback was there before.
         (state(AWAITED, acquired(), callbacks=[("q", "p")]),
          state(AWAITED, suspended(), callbacks=[("q", "p")]))),
]

LEASES: Final = [
    case("consistent_task_lease_released_atomically", "a holder stays",
         (state(acquired()), state(waiting(version=1, pid="w"))),
         (state(acquired()), state(waiting(version=1)))),
    case("consistent_task_lease_released_atomically", "a length stays",
         (state(acquired()), state(waiting(version=1, ttl=30))),
         (state(acquired()), state(waiting(version=1)))),
    case("consistent_task_lease_released_atomically", "an end stays",
         (state(acquired()), state(waiting(version=1, expires_at=130))),
         (state(acquired()), state(waiting(version=1)))),
    case("consistent_task_lease_released_atomically", "the version moves",
         (state(acquired()), state(waiting(version=2))),
         (state(acquired()), state(waiting(version=1)))),
    case("consistent_task_lease_fields_move_together", "taken in part",
         (state(waiting()), state(acquired(ttl=None))), (state(waiting()), state(acquired()))),
    case("consistent_task_lease_fields_move_together", "given up in part",
         (state(acquired()), state(waiting(pid="w"))), (state(acquired()), state(waiting()))),
    case("consistent_task_lease_fields_move_together", "another holder",
         (state(acquired()), state(acquired(pid="v"))),
         (state(acquired()), state(acquired(expires_at=140)))),
    case("consistent_task_lease_fields_move_together", "another length",
         (state(acquired()), state(acquired(ttl=31))),
         (state(acquired()), state(acquired(expires_at=140)))),
    case("consistent_task_lease_fields_move_together", "without acquisition",
         (state(waiting()), state(waiting(pid="w"))), (state(waiting()), state(acquired()))),
    case("consistent_task_lease_deadline_is_now_plus_ttl", "any end",
         (state(waiting()), state(acquired(expires_at=131))),
         (state(waiting()), state(acquired()))),
    case("consistent_task_lease_deadline_is_now_plus_ttl", "the old end, another length",
         (state(acquired(expires_at=120)), state(acquired(expires_at=120, ttl=31))),
         (state(acquired(expires_at=120)), state(acquired(expires_at=120, failures=1)))),
    case("consistent_task_lease_deadline_is_now_plus_ttl", "the old end, another state",
         (state(acquired(expires_at=120)), state(suspended(expires_at=120, ttl=30))),
         (state(acquired(expires_at=120)), state(acquired(expires_at=120, failures=1)))),
    case("consistent_task_lease_deadline_is_now_plus_ttl", "the old length, another end",
         (state(acquired(expires_at=120)), state(acquired(expires_at=125))),
         (state(acquired(expires_at=120)), state(acquired(expires_at=130)))),
]

_FRESH: Final = state(waiting())
_TAKEN: Final = (_FRESH, state(acquired()))
ACQUISITION: Final = [
    case("consistent_task_acquisition_is_atomic", "from suspended",
         (state(suspended(version=0)), state(acquired())), _TAKEN),
    case("consistent_task_acquisition_is_atomic", "the same version",
         (state(waiting(version=1)), state(acquired())), _TAKEN),
    case("consistent_task_acquisition_is_atomic", "by nobody",
         (_FRESH, state(acquired(pid=None))), _TAKEN),
    case("consistent_task_acquisition_is_atomic", "no length",
         (_FRESH, state(acquired(ttl=None))), _TAKEN),
    case("consistent_task_acquisition_is_atomic", "another end",
         (_FRESH, state(acquired(expires_at=131))), _TAKEN),
    case("consistent_task_acquisition_is_atomic", "a next try",
         (_FRESH, state(acquired(retry_at=100))), _TAKEN),
    case("consistent_task_acquisition_is_atomic", "resumes",
         (_FRESH, state(acquired(), resumes=RESUMED)), _TAKEN),
    case("consistent_task_resumes_cleared_only_on_dispatch_or_park", "while pending",
         (WOKEN, state(waiting(version=1))), (WOKEN, state(acquired(version=2)))),
    case("consistent_task_resumes_cleared_only_on_dispatch_or_park", "while halted",
         (state(halted(), resumes=RESUMED), state(halted())),
         (state(acquired(), resumes=RESUMED), state(suspended()))),
]

_POSTPONED: Final = state(DEBOUNCED, waiting(retry_at=200))


def _debounced(task: Task, *, holder: str = "p", latest: int | None = None) -> State:
    """A task of a promise with a debounce key, and who holds that."""
    result = state(DEBOUNCED, task)
    key = keys_of(DEBOUNCED.tags)[EntryKind.DEBOUNCE]
    result.entries[key] = Entry(key, Debounce(holder, 10, latest))
    return result


RETRY: Final = [
    case("consistent_task_pending_entry_arms_retry", "due later",
         (state(acquired()), state(waiting(version=1, retry_at=101))),
         (state(acquired()), state(waiting(version=1)))),
    case("consistent_task_pending_entry_arms_retry", "due before",
         (state(acquired()), state(waiting(version=1, retry_at=99)), "task.nack"),
         (state(acquired()), state(waiting(version=1, retry_at=900)), "task.nack")),
    case("consistent_task_pending_entry_arms_retry", "a pushed task's lease expired",
         (state(acquired()), state(waiting(version=1, retry_at=900, failures=1)), "lease.expire"),
         (state(acquired(delivery=PULL)),
          state(waiting(version=1, retry_at=900, failures=1, delivery=PULL)), "lease.expire")),
    case("consistent_task_pending_entry_arms_retry", "an expired lease that is not counted",
         (state(acquired(delivery=PULL)),
          state(waiting(version=1, retry_at=900, delivery=PULL)), "lease.expire"),
         (state(acquired(delivery=PULL)),
          state(waiting(version=1, retry_at=900, failures=1, delivery=PULL)), "lease.expire")),
    case("consistent_task_pending_entry_arms_retry", "not after a lease",
         (state(halted()), state(waiting(version=1, retry_at=900)), "task.nack"),
         (state(halted()), state(waiting(version=1)), "task.continue")),
    case("consistent_task_retry_rearm_only_when_due", "not due",
         (state(waiting(retry_at=101)), state(waiting(retry_at=200))),
         (state(waiting()), state(waiting(retry_at=200)))),
    case("consistent_task_retry_rearm_only_when_due", "it had none",
         (state(waiting(retry_at=None)), state(waiting(retry_at=200))),
         (state(waiting()), state(waiting(retry_at=200)))),
    case("consistent_task_retry_rearm_only_when_due", "debounced forward",
         (_POSTPONED, _debounced(waiting(retry_at=150)), "promise.create"),
         (_POSTPONED, _debounced(waiting(retry_at=300)), "promise.create")),
    case("consistent_task_retry_rearm_only_when_due", "without a debounce key",
         (state(JOB, waiting(retry_at=200)), state(JOB, waiting(retry_at=300)), "promise.create"),
         (_POSTPONED, _debounced(waiting(retry_at=300)), "promise.create")),
    case("consistent_task_retry_rearm_only_when_due", "debounced beyond the longest delay",
         (_POSTPONED, _debounced(waiting(retry_at=301), latest=300), "promise.create"),
         (_POSTPONED, _debounced(waiting(retry_at=300), latest=300), "promise.create")),
    case("consistent_task_retry_rearm_only_when_due", "debounced after its start",
         (state(DEBOUNCED, waiting(retry_at=200, version=1)),
          _debounced(waiting(retry_at=300, version=1)), "promise.create"),
         (_POSTPONED, _debounced(waiting(retry_at=300)), "promise.create")),
    case("consistent_task_retry_rearm_only_when_due", "debounced by who does not hold the key",
         (_POSTPONED, _debounced(waiting(retry_at=300), holder="other"), "promise.create"),
         (_POSTPONED, _debounced(waiting(retry_at=300)), "promise.create")),
]
# fmt: on

CONSISTENT_STEP_TASKS: Final = [
    *_edges(),
    *BIRTH,
    *SETTLEMENT,
    *WAKING,
    *LEASES,
    *ACQUISITION,
    *RETRY,
]

# Every edge that is admissible, to be tried one by one.
ADMISSIBLE_EDGES: Final = [
    (_RECORDS[TaskState(start)], _RECORDS[TaskState(end)])
    for start, ends in _ALLOWED.items()
    for end in ends
]
