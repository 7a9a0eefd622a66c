"""Cases for the properties of single records: one row for each clause, the bad one first."""

from __future__ import annotations

from typing import Final

from kept.protocol.records import Delivery, MessageKey, PromiseState, Value
from tests.unit.check.cases.records import (
    DATA,
    EXTERNAL,
    HOOK,
    TARGETED,
    TIMER,
    StateCase,
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
    unblock,
    waiting,
)

TIMER_WITH_TARGET: Final = TIMER | TARGETED
NEVER: Final = Delivery.NEVER
CANCELED: Final = PromiseState.REJECTED_CANCELED


def case(name: str, clause: str, bad: object, good: object) -> StateCase:
    """A case from two states, or from two single records."""
    return StateCase("well_formed_" + name, clause, _state(bad), _state(good))


def _state(of: object):  # type: ignore[no-untyped-def]
    return of if hasattr(of, "promises") else state(of)  # type: ignore[arg-type]


def with_resumes(task, *awaited):  # type: ignore[no-untyped-def]
    return state(task, resumes=[(task.id, each) for each in awaited])


# fmt: off
PROMISES: Final = [
    case("promise_created_at_lte_timeout_at", "created later",
         pending(created_at=20, timeout_at=19), pending(created_at=20, timeout_at=20)),
    case("promise_pending_created_before_deadline", "created at the deadline",
         pending(created_at=20, timeout_at=20), pending(created_at=20, timeout_at=21)),
    case("promise_settled_at_lte_timeout_at", "settled later",
         resolved(settled_at=51, timeout_at=50), resolved(settled_at=50, timeout_at=50)),
    case("promise_created_at_lte_settled_at", "settled earlier",
         resolved(created_at=20, settled_at=19), resolved(created_at=20, settled_at=20)),
    case("promise_settled_at_iff_not_pending", "pending with a settlement time",
         pending(settled_at=50), pending()),
    case("promise_settled_at_iff_not_pending", "settled without",
         resolved(settled_at=None), resolved()),
    case("promise_pending_has_no_value", "data",
         pending(value=DATA), pending()),
    case("promise_pending_has_no_value", "headers",
         pending(value=Value(headers={"a": "b"})), pending(value=Value(headers={}))),
    case("promise_deadline_verdict_matches_timer_tag", "not a timer",
         resolved(settled_at=50, timeout_at=50), timed_out()),
    case("promise_deadline_verdict_matches_timer_tag", "a timer",
         timed_out(tags=TIMER), resolved(tags=TIMER, settled_at=50, timeout_at=50)),
    case("promise_deadline_settlement_has_no_value", "data",
         timed_out(value=DATA), timed_out()),
    case("promise_timer_not_targeted", "its task is pushed",
         state(pending(tags=TIMER_WITH_TARGET), waiting()), pending(tags=TIMER)),
    case("promise_timer_not_targeted", "its task can be claimed",
         state(pending(tags=TIMER_WITH_TARGET), waiting(delivery=NEVER, ready=True)),
         state(pending(tags=TIMER_WITH_TARGET), waiting(delivery=NEVER))),
    case("promise_timer_not_targeted", "an execute is sent",
         state(pending(tags=TIMER_WITH_TARGET), waiting(delivery=NEVER), execute()),
         state(pending(tags=TIMER_WITH_TARGET), waiting(delivery=NEVER))),
    case("promise_timedout_is_server_owned", "not at the deadline",
         timed_out(settled_at=49), timed_out()),
    case("promise_callbacks_unique", "an awaiter twice",
         state(pending(), callbacks=[("p", "x"), ("p", "x")]),
         state(pending(), callbacks=[("p", "x"), ("p", "y")])),
    case("promise_listeners_unique", "an address twice",
         state(pending(), listeners=[("p", HOOK), ("p", HOOK)]),
         state(pending(), listeners=[("p", HOOK)])),
    case("promise_obligations_require_external", "a callback",
         state(pending(tags={}), callbacks=[("p", "x")]),
         state(pending(), callbacks=[("p", "x")])),
    case("promise_obligations_require_external", "a listener",
         state(pending(tags={"resonate:external": "yes"}), listeners=[("p", HOOK)]),
         state(pending(), listeners=[("p", HOOK)])),
    case("promise_awaiter_is_not_self", "awaits itself",
         state(pending(), callbacks=[("p", "p")]),
         state(pending(), callbacks=[("p", "x")])),
    case("promise_created_at_lte_now", "tomorrow's", pending(created_at=101),
         pending(created_at=100)),
    case("promise_settled_at_lte_now", "tomorrow's", resolved(settled_at=101), resolved()),
]

TASKS: Final = [
    case("task_acquired_iff_has_pid", "acquired by nobody", acquired(pid=None), acquired()),
    case("task_acquired_iff_has_pid", "held and not acquired", waiting(pid="w"), waiting()),
    case("task_acquired_iff_has_ttl", "no length", acquired(ttl=None), acquired()),
    case("task_acquired_iff_has_ttl", "not acquired", waiting(ttl=1), waiting()),
    case("task_acquired_iff_has_expires_at", "no end", acquired(expires_at=None), acquired()),
    case("task_acquired_iff_has_expires_at", "not acquired", waiting(expires_at=1), waiting()),
    case("task_pending_iff_has_retry_at", "pending for ever", waiting(retry_at=None), waiting()),
    case("task_pending_iff_has_retry_at", "not pending", acquired(retry_at=1), acquired()),
    case("task_fulfilled_is_cleared", "a holder", fulfilled(pid="w"), fulfilled()),
    case("task_fulfilled_is_cleared", "a length", fulfilled(ttl=1), fulfilled()),
    case("task_fulfilled_is_cleared", "a lease", fulfilled(expires_at=1), fulfilled()),
    case("task_fulfilled_is_cleared", "a next try", fulfilled(retry_at=1), fulfilled()),
    case("task_fulfilled_is_cleared", "resumes", with_resumes(fulfilled(), "x"), fulfilled()),
    case("task_suspended_is_cleared", "a holder", suspended(pid="w"), suspended()),
    case("task_suspended_is_cleared", "a length", suspended(ttl=1), suspended()),
    case("task_suspended_is_cleared", "a lease", suspended(expires_at=1), suspended()),
    case("task_suspended_is_cleared", "a next try", suspended(retry_at=1), suspended()),
    case("task_halted_is_cleared", "a holder", halted(pid="w"), halted()),
    case("task_halted_is_cleared", "a length", halted(ttl=1), halted()),
    case("task_halted_is_cleared", "a lease", halted(expires_at=1), halted()),
    case("task_halted_is_cleared", "a next try", halted(retry_at=1), with_resumes(halted(), "x")),
    case("task_suspended_has_no_resumes", "a resume", with_resumes(suspended(), "x"), suspended()),
    case("task_resumes_unique", "counted twice",
         with_resumes(waiting(resumes=2), "x"), with_resumes(waiting(resumes=2), "x", "y")),
    case("task_resumes_unique", "standing twice",
         with_resumes(waiting(resumes=1), "x", "x"), with_resumes(waiting(resumes=1), "x")),
    case("task_resumes_unique", "counted, not there",
         waiting(resumes=1), with_resumes(waiting(resumes=1), "x")),
    case("task_acquired_version_positive", "version 0", acquired(version=0), acquired()),
]

SCHEDULES: Final = [
    case("schedule_promise_tags_not_timer_targeted", "for no address",
         schedule(promise_tags=TIMER | {"resonate:target": "somewhere"}),
         schedule(promise_tags=TIMER_WITH_TARGET)),
    case("schedule_created_at_lte_next_run_at", "next before its creation",
         schedule(next_run_at=9), schedule(next_run_at=10)),
    case("schedule_created_at_lte_last_run_at", "last before its creation",
         schedule(last_run_at=9), schedule(last_run_at=10)),
    case("schedule_last_run_at_lt_next_run_at", "the same instant twice",
         schedule(last_run_at=200), schedule(last_run_at=199)),
]

STORE: Final = [
    case("store_promise_ids_unique", "under two keys",
         state(pending("p"), misplaced={"q": pending("p")}), state(pending("p"), pending("q"))),
    case("store_task_ids_unique", "under two keys",
         state(waiting("p"), misplaced={"q": waiting("p")}), state(waiting("p"), waiting("q"))),
    case("store_schedule_ids_unique", "under two keys",
         state(schedule("c"), misplaced={"d": schedule("c")}), state(schedule("c"), schedule("d"))),
    case("store_outbox_keys_unique", "an execute under two keys",
         state(execute(), misplaced={MessageKey.execute("q"): execute()}),
         state(execute("p"), execute("q"))),
    case("store_outbox_keys_unique", "an unblock that goes elsewhere",
         state(misplaced={MessageKey.unblock("p", "http://other.test"): unblock()}),
         state(unblock(), unblock(address="http://other.test"))),
    case("store_outbox_keys_unique", "an execute by address",
         state(misplaced={MessageKey("execute", "p", HOOK): execute()}),  # type: ignore[arg-type]
         state(execute())),
]

OURS: Final = [
    case("task_ttl_positive", "length 0", acquired(ttl=0), acquired(ttl=1)),
    case("promise_target_is_nonempty", "empty",
         pending(tags={"resonate:target": ""}), pending(tags=TARGETED)),
    case("promise_delay_before_deadline", "at the deadline",
         pending(tags=TARGETED | {"resonate:delay": "1000"}),
         pending(tags=TARGETED | {"resonate:delay": "999"})),
    case("promise_delay_before_deadline", "not a number",
         pending(tags=EXTERNAL | {"resonate:delay": "soon"}),
         pending(tags=EXTERNAL | {"resonate:delay": "0"})),
]
# fmt: on

WELL_FORMED: Final = [*PROMISES, *TASKS, *SCHEDULES, *STORE, *OURS]
