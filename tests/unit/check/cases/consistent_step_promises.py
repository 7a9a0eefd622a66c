"""Cases for promises, edges and messages that must move together: one row for each clause."""

from __future__ import annotations

from typing import Final

from kept.protocol.records import PromiseState
from tests.unit.check.cases.records import (
    DATA,
    HOOK,
    TARGETED,
    TIMER,
    acquired,
    execute,
    fulfilled,
    pending,
    resolved,
    state,
    suspended,
    timed_out,
    unblock,
    waiting,
)
from tests.unit.check.cases.steps import AWAITED, AWAITED_DONE, JOB, JOB_DONE, NOTHING, case

CANCELED: Final = PromiseState.REJECTED_CANCELED
LATE: Final = pending(timeout_at=100)
LATE_TIMER: Final = pending(tags=TIMER, timeout_at=100)
CALLED_BACK: Final = state(AWAITED, JOB, suspended(), callbacks=[("q", "p")])
HEARD: Final = state(pending(), listeners=[("p", HOOK)])
HEARD_DONE: Final = state(resolved(), listeners=[("p", HOOK)])
RESUMED: Final = [("p", "q")]

# fmt: off
SETTLEMENT: Final = [
    case("consistent_promise_settled_at_moves_with_state", "only the time",
         (state(resolved()), state(resolved(settled_at=99))), (state(pending()), state(resolved()))),
    case("consistent_promise_settled_at_moves_with_state", "only the state",
         (state(resolved()), state(resolved(state=CANCELED))),
         (state(pending()), state(resolved()))),
    case("consistent_promise_settled_at_moves_with_state", "gone",
         (state(resolved()), NOTHING), (state(resolved()), NOTHING, "retention")),
    case("consistent_promise_settled_at_moves_with_state", "gone while pending",
         (state(pending()), NOTHING, "retention"), (state(resolved()), NOTHING, "retention")),
    case("consistent_promise_settled_at_moves_with_state", "gone while a message names it",
         (state(resolved(), unblock()), state(unblock()), "retention"),
         (state(resolved()), NOTHING, "retention")),
    case("consistent_promise_state_edge_admissible", "settled twice",
         (state(resolved()), state(resolved(state=CANCELED))),
         (state(pending()), state(resolved(state=CANCELED)))),
    case("consistent_settlement_fulfils_task", "the task waits on",
         (state(JOB, waiting()), state(JOB_DONE, waiting())),
         (state(JOB, waiting()), state(JOB_DONE, fulfilled(version=0)))),
    case("consistent_promise_settlement_stamp", "gone",
         (state(pending()), NOTHING, "retention"), (state(pending()), state(resolved()))),
    case("consistent_promise_settlement_stamp", "a client, not now",
         (state(pending()), state(resolved(settled_at=99))), (state(pending()), state(resolved()))),
    case("consistent_promise_settlement_stamp", "a client, at the deadline",
         (state(LATE), state(resolved(timeout_at=100, settled_at=100))),
         (state(LATE), state(timed_out(timeout_at=100, settled_at=100)))),
    case("consistent_promise_settlement_stamp", "a client, timed out",
         (state(pending()), state(timed_out(settled_at=100, timeout_at=1000))),
         (state(pending()), state(resolved(state=CANCELED)))),
    case("consistent_promise_settlement_stamp", "a deadline to come",
         (state(pending(timeout_at=101)), state(timed_out(timeout_at=101, settled_at=101))),
         (state(LATE), state(timed_out(timeout_at=100, settled_at=100)))),
    case("consistent_promise_settlement_stamp", "the wrong verdict",
         (state(LATE_TIMER), state(timed_out(tags=TIMER, timeout_at=100, settled_at=100))),
         (state(LATE_TIMER), state(resolved(tags=TIMER, timeout_at=100)))),
    case("consistent_promise_settlement_stamp", "the deadline brings a value",
         (state(LATE), state(timed_out(timeout_at=100, settled_at=100, value=DATA))),
         (state(LATE), state(timed_out(timeout_at=100, settled_at=100)))),
]

BIRTH: Final = [
    case("consistent_new_promise_born_clean", "a callback",
         (NOTHING, state(pending(), callbacks=[("p", "x")])), (NOTHING, state(pending()))),
    case("consistent_new_promise_born_clean", "a listener",
         (NOTHING, state(pending(), listeners=[("p", HOOK)])), (NOTHING, state(pending()))),
    case("consistent_new_promise_born_clean", "a value",
         (NOTHING, state(pending(value=DATA))), (NOTHING, state(pending()))),
    case("consistent_new_promise_born_clean", "created tomorrow",
         (NOTHING, state(pending(created_at=101))), (NOTHING, state(pending(created_at=100)))),
    case("consistent_new_promise_born_clean", "pending at its deadline",
         (NOTHING, state(pending(created_at=100, timeout_at=100))), (NOTHING, state(pending()))),
    case("consistent_new_promise_born_clean", "pending and settled",
         (NOTHING, state(pending(settled_at=50))), (NOTHING, state(pending()))),
    case("consistent_new_promise_born_clean", "settled before its deadline",
         (NOTHING, state(resolved())), (NOTHING, state(timed_out(created_at=50)))),
    case("consistent_new_promise_born_clean", "past its deadline, created before",
         (NOTHING, state(timed_out(created_at=49))), (NOTHING, state(timed_out(created_at=50)))),
    case("consistent_new_promise_born_clean", "past its deadline, the wrong verdict",
         (NOTHING, state(timed_out(created_at=50, tags=TIMER))),
         (NOTHING, state(resolved(created_at=50, settled_at=50, timeout_at=50, tags=TIMER)))),
]

EDGES: Final = [
    case("consistent_obligation_discharge_requires_settled", "a callback of a pending promise",
         (CALLED_BACK, state(AWAITED, JOB, suspended())),
         (CALLED_BACK, state(AWAITED_DONE, JOB, waiting(version=1), resumes=RESUMED))),
    case("consistent_obligation_discharge_requires_settled", "a listener of a pending promise",
         (HEARD, state(pending())), (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_callback_consumption_resumes_awaiter", "not resumed",
         (CALLED_BACK, state(AWAITED_DONE, JOB, suspended())),
         (CALLED_BACK, state(AWAITED_DONE, JOB, waiting(version=1), resumes=RESUMED))),
    case("consistent_callback_consumption_resumes_awaiter", "past its deadline, not timed out",
         (CALLED_BACK, state(AWAITED_DONE, pending(tags=TARGETED, timeout_at=50), suspended())),
         (CALLED_BACK, state(AWAITED_DONE, timed_out(tags=TARGETED), fulfilled()))),
    case("consistent_listener_consumption_enqueues_unblock", "nothing is sent",
         (HEARD_DONE, state(resolved())), (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_listener_consumption_enqueues_unblock", "sent elsewhere",
         (HEARD_DONE, state(resolved(), unblock(address="http://other.test"))),
         (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_listener_consumption_enqueues_unblock", "its record is pending",
         (HEARD, state(pending(), unblock())), (HEARD_DONE, state(resolved(), unblock()))),
]

_WORK: Final = state(JOB, acquired())
MESSAGES: Final = [
    case("consistent_new_execute_matches_task_and_target", "no task",
         (state(JOB), state(JOB, execute())),
         (state(JOB, waiting()), state(JOB, waiting(), execute()))),
    case("consistent_new_execute_matches_task_and_target", "an older version",
         (_WORK, state(JOB, acquired(), execute(version=0))),
         (_WORK, state(JOB, acquired(), execute(version=1)))),
    case("consistent_new_execute_matches_task_and_target", "no promise",
         (state(waiting()), state(waiting(), execute())),
         (state(JOB, waiting()), state(JOB, waiting(), execute()))),
    case("consistent_new_execute_matches_task_and_target", "elsewhere",
         (state(JOB, waiting()), state(JOB, waiting(), execute(address="http://other.test"))),
         (state(JOB, waiting()), state(JOB, waiting(), execute()))),
    case("consistent_new_execute_matches_task_and_target", "replaced by another address",
         (state(JOB, waiting(), execute()),
          state(JOB, waiting(), execute(address="http://other.test"))),
         (state(JOB, waiting(version=1), execute()),
          state(JOB, waiting(version=1), execute(version=1)))),
    case("consistent_new_unblock_carries_stored_record", "no promise",
         (NOTHING, state(unblock())), (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_new_unblock_carries_stored_record", "pending",
         (HEARD, state(pending(), unblock())), (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_new_unblock_carries_stored_record", "no settlement time",
         (HEARD, state(resolved(settled_at=None), unblock())),
         (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_new_unblock_discharges_its_listener", "nobody listened",
         (state(resolved()), state(resolved(), unblock())),
         (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_new_unblock_discharges_its_listener", "still listening",
         (HEARD_DONE, state(resolved(), unblock(), listeners=[("p", HOOK)])),
         (HEARD_DONE, state(resolved(), unblock()))),
    case("consistent_new_unblock_discharges_its_listener", "no promise before",
         (NOTHING, state(resolved(), unblock())), (HEARD_DONE, state(resolved(), unblock()))),
]
# fmt: on

CONSISTENT_STEP_PROMISES: Final = [*SETTLEMENT, *BIRTH, *EDGES, *MESSAGES]
