"""Cases for what a step must leave as it is: one row for each clause, the bad step first."""

from __future__ import annotations

from typing import Final

from kept.protocol.records import PromiseState
from tests.unit.check.cases.records import (
    DATA,
    EXTERNAL,
    TARGETED,
    acquired,
    execute,
    fulfilled,
    halted,
    pending,
    resolved,
    schedule,
    state,
    suspended,
    timed_out,
    waiting,
)
from tests.unit.check.cases.steps import JOB, JOB_DONE, NOTHING, case

CANCELED: Final = PromiseState.REJECTED_CANCELED
DEAD: Final = pending(tags=TARGETED, timeout_at=100)
LATE: Final = pending(timeout_at=100)
_SAME: Final = (state(resolved()), state(resolved(param=resolved().param)))
_SETTLED: Final = (state(pending()), state(resolved()))
_DRAINED: Final = (state(resolved()), state(resolved(value=DATA)))
_GONE_WELL: Final = (state(resolved()), NOTHING, "retention")
_GONE: Final = (state(resolved()), NOTHING)


# fmt: off
PROMISES: Final = [
    case("preserved_promise_birth_fields_immutable", "param",
         (state(pending()), state(pending(param=DATA))), _SETTLED),
    case("preserved_promise_birth_fields_immutable", "tags",
         (state(pending()), state(pending(tags=EXTERNAL | {"a": "b"}))), _SETTLED),
    case("preserved_promise_birth_fields_immutable", "deadline",
         (state(pending()), state(pending(timeout_at=1001))), _SETTLED),
    case("preserved_promise_birth_fields_immutable", "creation",
         (state(pending()), state(pending(created_at=11))), _SETTLED),
    case("preserved_settled_promise_record", "state",
         (state(resolved()), state(resolved(state=CANCELED))), _GONE_WELL),
    case("preserved_settled_promise_record", "settlement time",
         (state(resolved()), state(resolved(settled_at=99))), _GONE_WELL),
    case("preserved_settled_promise_record", "value", _DRAINED, _GONE_WELL),
    case("preserved_settled_promise_record", "gone", _GONE, _GONE_WELL),
    case("preserved_promise_state_frozen_once_settled", "state",
         (state(resolved()), state(resolved(state=CANCELED))), _GONE_WELL),
    case("preserved_promise_state_frozen_once_settled", "gone", _GONE, _GONE_WELL),
    case("preserved_promise_settlement_is_one_way", "pending again",
         (state(resolved()), state(pending())), (NOTHING, state(pending()))),
    case("preserved_promise_value_until_settlement", "value",
         (state(pending()), state(pending(value=DATA))),
         (state(pending()), state(resolved(value=DATA)))),
    case("preserved_promise_value_until_settlement", "gone", _GONE, _GONE_WELL),
    case("preserved_promise_value_until_settlement", "gone while pending",
         (state(pending()), NOTHING, "retention"), _GONE_WELL),
    case("preserved_promise_no_duplicate_ids", "under two keys",
         (state(pending("p")), state(pending("p"), misplaced={"q": pending("p")})),
         (state(pending("p")), state(pending("p"), pending("q")))),
    case("preserved_timedout_is_server_owned", "before the deadline",
         (state(pending(timeout_at=101)), state(timed_out(timeout_at=101, settled_at=101))),
         (state(LATE), state(timed_out(timeout_at=100, settled_at=100)))),
    case("preserved_timedout_is_server_owned", "not at the deadline",
         (state(LATE), state(timed_out(timeout_at=100, settled_at=99))),
         (state(LATE), state(timed_out(timeout_at=100, settled_at=100)))),
]

_TASK_GONE_WELL: Final = (state(JOB_DONE, fulfilled()), NOTHING, "retention")
TASKS: Final = [
    case("preserved_fulfilled_task", "not fulfilled",
         (state(fulfilled()), state(waiting(version=1))), _TASK_GONE_WELL),
    case("preserved_fulfilled_task", "another version",
         (state(fulfilled()), state(fulfilled(version=2))), _TASK_GONE_WELL),
    case("preserved_fulfilled_task", "not cleared",
         (state(fulfilled()), state(fulfilled(retry_at=1))), _TASK_GONE_WELL),
    case("preserved_fulfilled_task", "a resume",
         (state(fulfilled()), state(fulfilled(), resumes=[("p", "q")])), _TASK_GONE_WELL),
    case("preserved_fulfilled_task", "gone",
         (state(JOB_DONE, fulfilled()), NOTHING), _TASK_GONE_WELL),
    case("preserved_no_dead_dispatch", "released past the deadline",
         (state(DEAD, acquired()), state(DEAD, waiting(version=1))),
         (state(JOB, acquired()), state(JOB, waiting(version=1)))),
    case("preserved_no_dead_dispatch", "born past the deadline",
         (NOTHING, state(DEAD, waiting())), (NOTHING, state(JOB, waiting()))),
    case("preserved_no_dead_dispatch", "of a settled promise",
         (state(JOB_DONE, halted()), state(JOB_DONE, waiting(version=1))),
         (state(JOB, halted()), state(JOB, waiting(version=1)))),
    case("preserved_execute_only_for_live_task", "past the deadline",
         (state(DEAD, waiting()), state(DEAD, waiting(), execute())),
         (state(JOB, waiting()), state(JOB, waiting(), execute()))),
    case("preserved_task_acquisition_only_from_pending", "from suspended",
         (state(suspended()), state(acquired())), (state(waiting()), state(acquired()))),
    case("preserved_task_acquisition_only_from_pending", "from halted",
         (state(halted()), state(acquired())), (NOTHING, state(acquired()))),
    case("preserved_task_suspension_only_from_acquired", "from pending",
         (state(waiting()), state(suspended())), (state(acquired()), state(suspended()))),
    case("preserved_task_suspension_only_from_acquired", "from nothing",
         (NOTHING, state(suspended())), (state(acquired()), state(suspended()))),
    case("preserved_task_halted_only_reenters_via_pending", "acquired",
         (state(halted()), state(acquired())), (state(halted()), state(waiting()))),
    case("preserved_task_halted_only_reenters_via_pending", "gone",
         (state(halted()), NOTHING, "retention"), (state(halted()), state(fulfilled()))),
    case("preserved_task_lease_holder_stable", "another holder",
         (state(acquired()), state(acquired(pid="v"))),
         (state(acquired()), state(acquired(expires_at=140)))),
    case("preserved_task_lease_holder_stable", "another length",
         (state(acquired()), state(acquired(ttl=31))),
         (state(acquired()), state(acquired(expires_at=140)))),
]

_PUT: Final = (state(schedule()), state(schedule(cron="0 * * * *")), "schedule.put")
SCHEDULES: Final = [
    case("preserved_schedule_birth_fields_immutable", clause,
         (state(schedule()), state(schedule(**{clause: other}))), _PUT)
    for clause, other in [
        ("cron", "0 * * * *"),
        ("promise_id", "y"),
        ("promise_timeout", 61),
        ("promise_param", DATA),
        ("promise_tags", {"a": "b"}),
        ("created_at", 11),
    ]
] + [
    case("preserved_schedule_birth_fields_immutable", "creation, by schedule.put",
         (state(schedule()), state(schedule(created_at=11)), "schedule.put"), _PUT),
]
# fmt: on

PRESERVED: Final = [*PROMISES, *TASKS, *SCHEDULES]
