"""Cases for records that must fit together in a state: one row for each clause, the bad one first."""

from __future__ import annotations

from typing import Final

from kept.check.state import State
from kept.protocol.addresses import BASE_SCHEMES
from tests.unit.check.cases.records import (
    HOOK,
    TARGETED,
    StateCase,
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

WITH_NATS: Final = BASE_SCHEMES | {"nats"}


def case(
    name: str, clause: str, bad: State, good: State, schemes: frozenset[str] = BASE_SCHEMES
) -> StateCase:
    return StateCase("consistent_" + name, clause, bad, good, schemes=schemes)


def listening(address: str) -> State:
    return state(pending(), listeners=[("p", address)])


def unblocking(address: str) -> State:
    return state(resolved(), unblock(address=address))


JOB: Final = pending(tags=TARGETED)
DONE: Final = resolved(tags=TARGETED)
AWAITED: Final = pending("q")
DEAD: Final = pending(tags=TARGETED, timeout_at=100)

# fmt: off
CONSISTENT_STATE: Final = [
    case("task_iff_targeted_promise", "no task", state(JOB), state(JOB, waiting())),
    case("task_iff_targeted_promise", "no promise", state(waiting()), state(JOB, waiting())),
    case("task_iff_targeted_promise", "no target",
         state(pending(), waiting()), state(JOB, waiting(), pending("q"))),
    case("settled_promise_has_fulfilled_task", "still waiting",
         state(DONE, waiting()), state(DONE, fulfilled())),
    case("callback_awaiter_is_targeted", "no awaiter",
         state(AWAITED, callbacks=[("q", "p")]),
         state(AWAITED, JOB, waiting(), callbacks=[("q", "p")])),
    case("callback_awaiter_is_targeted", "no target",
         state(AWAITED, pending(), callbacks=[("q", "p")]),
         state(AWAITED, JOB, waiting(), callbacks=[("q", "p")])),
    case("listener_addresses_deliverable", "a queue", listening("queue://q"), listening(HOOK)),
    case("listener_addresses_deliverable", "a poll address without @",
         listening("poll://group"), listening("poll://any@group")),
    case("listener_addresses_deliverable", "a bad poll address, though its scheme is served",
         listening("poll://group"), listening("https://a.test"), WITH_NATS),
    case("listener_addresses_deliverable", "no transport of that scheme",
         listening("redis://topic"), listening("nats://topic"), WITH_NATS),
    case("outbox_execute_names_existing_task", "no task",
         state(JOB, execute()), state(JOB, waiting(), execute())),
    case("outbox_never_ahead", "ahead",
         state(JOB, waiting(version=1), execute(version=2)),
         state(JOB, waiting(version=1), execute(version=1))),
    case("outbox_execute_address_is_target_tag", "elsewhere",
         state(JOB, waiting(), execute(address="http://other.test")),
         state(JOB, waiting(), execute())),
    case("outbox_execute_address_is_target_tag", "no target",
         state(pending(), execute()), state(pending(), execute(address=""))),
    case("outbox_unblock_names_settled_promise", "no promise",
         state(unblock()), state(resolved(), unblock())),
    case("outbox_unblock_names_settled_promise", "pending",
         state(pending(), unblock()), state(timed_out(), unblock())),
    case("outbox_unblock_address_deliverable", "a queue",
         unblocking("queue://q"), unblocking(HOOK)),
    case("outbox_unblock_address_deliverable", "no transport of that scheme",
         unblocking("redis://topic"), unblocking("nats://topic"), WITH_NATS),
    case("settled_task_promise_settled", "pending",
         state(JOB, fulfilled()), state(DONE, fulfilled())),
    case("suspended_task_holds_rung", "nothing will wake it",
         state(JOB, AWAITED, suspended()),
         state(JOB, AWAITED, suspended(), callbacks=[("q", "p")])),
    case("suspended_task_holds_rung", "only what is not there would wake it",
         state(JOB, suspended(), callbacks=[("q", "p")]),
         state(JOB, AWAITED, suspended(), callbacks=[("q", "p")])),
]
# fmt: on

# States in which a property holds only because its guard does not.
DEAD_AND_SUSPENDED: Final = state(DEAD, suspended())
