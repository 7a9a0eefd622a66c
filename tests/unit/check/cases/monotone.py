"""Cases for what moves one way, and for background steps: one row for each clause."""

from __future__ import annotations

from typing import Final

from kept.protocol.records import PromiseState
from tests.unit.check.cases.records import (
    HOOK,
    TARGETED,
    TIMER,
    acquired,
    dead_letter,
    execute,
    fulfilled,
    halted,
    pending,
    resolved,
    state,
    suspended,
    timed_out,
    unblock,
    waiting,
)
from tests.unit.check.cases.steps import (
    JOB,
    JOB_DONE,
    NOTHING,
    case,
    internal_case,
)

REJECTED: Final = PromiseState.REJECTED
CANCELED: Final = PromiseState.REJECTED_CANCELED
CALLBACK: Final = [("p", "x")]
LISTENER: Final = [("p", HOOK)]
_AWAITED_BY_TWO: Final = state(pending(), callbacks=[("p", "x"), ("p", "y")])
_HEARD_BY_TWO: Final = state(pending(), listeners=[("p", HOOK), ("p", "poll://any@g")])
_GONE_WELL: Final = (state(JOB_DONE, fulfilled()), NOTHING, "retention")
_WITH_MESSAGES: Final = state(resolved(), unblock(), execute("q"))

# fmt: off
MONOTONE: Final = [
    case("monotone_promise_set_grows", "gone", (state(resolved()), NOTHING), _GONE_WELL),
    case("monotone_promise_set_grows", "pending and gone",
         (state(pending()), NOTHING, "retention"), _GONE_WELL),
    case("monotone_task_set_grows", "gone", (state(JOB_DONE, fulfilled()), NOTHING), _GONE_WELL),
    case("monotone_task_set_grows", "halted and gone",
         (state(JOB_DONE, halted()), NOTHING, "retention"), _GONE_WELL),
    case("monotone_task_version_increases_only_on_acquisition", "acquired, not raised",
         (state(waiting()), state(acquired(version=0))), (state(waiting()), state(acquired()))),
    case("monotone_task_version_increases_only_on_acquisition", "acquired, raised by two",
         (state(waiting()), state(acquired(version=2))), (state(waiting()), state(acquired()))),
    case("monotone_task_version_increases_only_on_acquisition", "raised by a release",
         (state(acquired()), state(waiting(version=2))),
         (state(acquired()), state(waiting(version=1)))),
    case("monotone_promise_callbacks_grow_while_pending", "one is gone",
         (_AWAITED_BY_TWO, state(pending(), callbacks=CALLBACK)),
         (state(pending(), callbacks=CALLBACK), _AWAITED_BY_TWO)),
    case("monotone_promise_callbacks_grow_while_pending", "born with one",
         (NOTHING, state(pending(), callbacks=CALLBACK)),
         (state(pending()), state(pending(), callbacks=CALLBACK))),
    case("monotone_promise_callbacks_shrink_once_settled", "a new one",
         (state(resolved()), state(resolved(), callbacks=CALLBACK)),
         (state(resolved(), callbacks=CALLBACK), state(resolved()))),
    case("monotone_promise_callbacks_shrink_once_settled", "born settled with one",
         (NOTHING, state(timed_out(), callbacks=CALLBACK)),
         (state(resolved(), callbacks=CALLBACK), state(resolved()))),
    case("monotone_promise_listeners_grow_while_pending", "one is gone",
         (_HEARD_BY_TWO, state(pending(), listeners=LISTENER)),
         (state(pending(), listeners=LISTENER), _HEARD_BY_TWO)),
    case("monotone_promise_listeners_grow_while_pending", "born with one",
         (NOTHING, state(pending(), listeners=LISTENER)),
         (state(pending()), state(pending(), listeners=LISTENER))),
    case("monotone_promise_listeners_shrink_once_settled", "a new one",
         (state(resolved()), state(resolved(), listeners=LISTENER)),
         (state(resolved(), listeners=LISTENER), state(resolved()))),
    case("monotone_promise_listeners_shrink_once_settled", "born settled with one",
         (NOTHING, state(timed_out(), listeners=LISTENER)),
         (state(resolved(), listeners=LISTENER), state(resolved()))),
    case("monotone_outbox_keys_never_disappear", "an unblock is gone",
         (_WITH_MESSAGES, state(resolved(), execute("q"))),
         (_WITH_MESSAGES, state(resolved(), execute("q")), "outbox.delivered")),
    case("monotone_outbox_keys_never_disappear", "an execute is gone after a failure",
         (_WITH_MESSAGES, state(resolved(), unblock()), "outbox.failed"),
         (_WITH_MESSAGES, state(resolved(), unblock()), "outbox.delivered")),
    case("monotone_outbox_keys_never_disappear", "delivered, and something else done",
         (_WITH_MESSAGES, state(resolved(), pending("r"), unblock()), "outbox.delivered"),
         (_WITH_MESSAGES, state(resolved(), unblock(), execute("q", version=1)))),
    case("monotone_outbox_keys_never_disappear", "taken, and its task waits for it",
         (state(JOB, waiting(), execute()), state(JOB, waiting()), "outbox.taken"),
         (state(JOB, acquired(), execute()), state(JOB, acquired()), "outbox.taken")),
    case("monotone_outbox_keys_never_disappear", "an unblock is taken",
         (_WITH_MESSAGES, state(resolved(), execute("q")), "outbox.taken"),
         (state(JOB, waiting(version=1), execute()), state(JOB, waiting(version=1)),
          "outbox.taken")),
    case("monotone_task_resumes_grow_or_clear", "some are gone",
         (state(waiting(), resumes=[("p", "x"), ("p", "y")]),
          state(waiting(), resumes=[("p", "x")])),
         (state(waiting(), resumes=[("p", "x")]),
          state(waiting(), resumes=[("p", "x"), ("p", "y")]))),
    case("monotone_task_resumes_grow_or_clear", "replaced",
         (state(waiting(), resumes=[("p", "x")]), state(waiting(), resumes=[("p", "y")])),
         (state(waiting(), resumes=[("p", "x")]), state(acquired()))),
    case("monotone_task_retry_rearm_advances", "to now",
         (state(waiting(retry_at=90)), state(waiting(retry_at=100))),
         (state(waiting(retry_at=90)), state(waiting(retry_at=101)))),
    case("monotone_task_retry_rearm_advances", "to never",
         (state(waiting()), state(waiting(retry_at=None))),
         (state(waiting()), state(waiting(retry_at=101)))),
]

_EDGE: Final = "consistent_task_state_edge_internal_admissible"
_TIMED_OUT: Final = (state(pending(timeout_at=50)), state(timed_out()))
_EXPIRED: Final = (state(acquired()), state(waiting(version=1)))
_EXHAUSTED: Final = (state(JOB, acquired()), state(JOB, halted(), dead_letter()), "lease.expire")
_REJECTED: Final = resolved(tags=TARGETED, state=REJECTED)

INTERNAL: Final = [
    internal_case(_EDGE, "pending to acquired", (state(waiting()), state(acquired())), _EXPIRED),
    internal_case(_EDGE, "pending to halted", (state(waiting()), state(halted())),
                  (state(waiting()), state(fulfilled()))),
    internal_case(_EDGE, "acquired to suspended", (state(acquired()), state(suspended())),
                  (state(acquired()), state(fulfilled()))),
    internal_case(_EDGE, "suspended to halted", (state(suspended()), state(halted())),
                  (state(suspended()), state(waiting()))),
    internal_case(_EDGE, "halted to pending", (state(halted()), state(waiting())),
                  (state(halted()), state(fulfilled()))),
    internal_case(_EDGE, "halted by an expiry that files no dead letter",
                  (state(JOB, acquired()), state(JOB, halted()), "lease.expire"), _EXHAUSTED),
    internal_case(_EDGE, "halted by an expiry, its dead letter was there",
                  (state(JOB, acquired(), dead_letter()), state(JOB, halted(), dead_letter()),
                   "lease.expire"), _EXHAUSTED),
    internal_case(_EDGE, "halted by another step",
                  (state(JOB, acquired()), state(JOB, halted(), dead_letter()), "task.retry"),
                  _EXHAUSTED),
    internal_case(_EDGE, "halted without a lease",
                  (state(JOB, waiting()), state(JOB, halted(), dead_letter()), "lease.expire"),
                  _EXHAUSTED),
    internal_case("consistent_promise_state_edge_internal_admissible", "resolved, not a timer",
                  (state(pending()), state(resolved())), _TIMED_OUT),
    internal_case("consistent_promise_state_edge_internal_admissible", "a settled one timed out",
                  (state(resolved()), state(timed_out())),
                  (state(pending(tags=TIMER)), state(resolved(tags=TIMER)))),
    internal_case("consistent_promise_state_edge_internal_admissible", "rejected, no dead letter",
                  (state(JOB, acquired()), state(_REJECTED, fulfilled()), "lease.expire"),
                  (state(JOB, acquired()), state(_REJECTED, fulfilled(), dead_letter()),
                   "lease.expire")),
    internal_case("consistent_promise_state_edge_internal_admissible", "canceled by no request",
                  (state(pending()), state(resolved(state=CANCELED)), "promise.timeout"),
                  (state(pending()), state(resolved(state=CANCELED)), "promise.cancel.spread")),
]
# fmt: on
