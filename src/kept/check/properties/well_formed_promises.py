"""What each promise satisfies by itself, in every state."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import only_waits
from kept.check.properties.registry import Violation, on_state
from kept.check.properties.scopes import StateScope, is_empty
from kept.check.state import NO_ENDS
from kept.protocol.records import PromiseState


@on_state("promises")
def well_formed_promise_created_at_lte_timeout_at(scope: StateScope) -> Iterator[Violation]:
    """A promise is created no later than its deadline."""
    for p in scope.promises.values():
        scope.reached += 1
        if p.created_at > p.timeout_at:
            yield Violation((p.id,), f"created at {p.created_at}, deadline {p.timeout_at}")


@on_state("promises")
def well_formed_promise_pending_created_before_deadline(
    scope: StateScope,
) -> Iterator[Violation]:
    """A pending promise was created before its deadline."""
    for p in scope.promises.values():
        if p.state is PromiseState.PENDING:
            scope.reached += 1
            if p.created_at >= p.timeout_at:
                yield Violation((p.id,), f"created at {p.created_at}, deadline {p.timeout_at}")


@on_state("promises")
def well_formed_promise_settled_at_lte_timeout_at(scope: StateScope) -> Iterator[Violation]:
    """A promise is settled no later than its deadline."""
    for p in scope.promises.values():
        if p.settled_at is not None:
            scope.reached += 1
            if p.settled_at > p.timeout_at:
                yield Violation((p.id,), f"settled at {p.settled_at}, deadline {p.timeout_at}")


@on_state("promises")
def well_formed_promise_created_at_lte_settled_at(scope: StateScope) -> Iterator[Violation]:
    """A promise is settled no earlier than it was created."""
    for p in scope.promises.values():
        if p.settled_at is not None:
            scope.reached += 1
            if p.created_at > p.settled_at:
                yield Violation((p.id,), f"created at {p.created_at}, settled at {p.settled_at}")


@on_state("promises")
def well_formed_promise_settled_at_iff_not_pending(scope: StateScope) -> Iterator[Violation]:
    """A promise has a settlement time exactly when it is not pending."""
    for p in scope.promises.values():
        scope.reached += 1
        if (p.settled_at is None) is not (p.state is PromiseState.PENDING):
            yield Violation((p.id,), f"{p.state.value}, settled at {p.settled_at}")


@on_state("promises")
def well_formed_promise_pending_has_no_value(scope: StateScope) -> Iterator[Violation]:
    """A pending promise has no data and no headers in its value."""
    for p in scope.promises.values():
        if p.state is PromiseState.PENDING:
            scope.reached += 1
            if not is_empty(p.value):
                yield Violation((p.id,), f"pending with {p.value}")


@on_state("promises")
def well_formed_promise_deadline_verdict_matches_timer_tag(
    scope: StateScope,
) -> Iterator[Violation]:
    """A promise settled at its deadline has the deadline's verdict: resolved for a timer, else
    timed out."""
    for p in scope.promises.values():
        if p.settled_at == p.timeout_at:
            scope.reached += 1
            if p.state is not p.verdict:
                yield Violation((p.id,), f"{p.state.value} at its deadline")


@on_state("promises")
def well_formed_promise_deadline_settlement_has_no_value(
    scope: StateScope,
) -> Iterator[Violation]:
    """A promise settled at its deadline has an empty value."""
    for p in scope.promises.values():
        if p.settled_at == p.timeout_at:
            scope.reached += 1
            if not is_empty(p.value):
                yield Violation((p.id,), f"settled by its deadline with {p.value}")


@on_state("promises")
def well_formed_promise_timer_not_targeted(scope: StateScope) -> Iterator[Violation]:
    """A timer has no target.

    Departure (A7.2): it may have one, as long as its task is never dispatched nor claimable.
    """
    for p in scope.promises.values():
        if p.is_timer:
            scope.reached += 1
            if p.target is not None and not only_waits(scope.state, p):
                yield Violation((p.id,), f"a timer whose target {p.target} is worked for")


@on_state("promises")
def well_formed_promise_timedout_is_server_owned(scope: StateScope) -> Iterator[Violation]:
    """Timed out is a deadline's verdict, so such a promise was settled at its deadline."""
    for p in scope.promises.values():
        if p.state is PromiseState.REJECTED_TIMEDOUT:
            scope.reached += 1
            if p.settled_at != p.timeout_at:
                yield Violation((p.id,), f"settled at {p.settled_at}, deadline {p.timeout_at}")


@on_state("callbacks")
def well_formed_promise_callbacks_unique(scope: StateScope) -> Iterator[Violation]:
    """No task stands twice among a promise's callbacks."""
    for of, to in scope.callbacks:
        scope.reached += 1
        if scope.state.callbacks.at[of][to] > 1:
            yield Violation((of, to), "the callback stands more than once")


@on_state("listeners")
def well_formed_promise_listeners_unique(scope: StateScope) -> Iterator[Violation]:
    """No address stands twice among a promise's listeners."""
    for of, to in scope.listeners:
        scope.reached += 1
        if scope.state.listeners.at[of][to] > 1:
            yield Violation((of, to), "the listener stands more than once")


@on_state("promises")
def well_formed_promise_obligations_require_external(scope: StateScope) -> Iterator[Violation]:
    """Only an external promise has callbacks or listeners."""
    callbacks, listeners = scope.state.callbacks.at, scope.state.listeners.at
    for id, p in scope.promises.items():
        if id in callbacks or id in listeners:
            scope.reached += 1
            if not p.is_external:
                yield Violation((p.id,), "an internal promise with callbacks or listeners")


@on_state("promises")
def well_formed_promise_awaiter_is_not_self(scope: StateScope) -> Iterator[Violation]:
    """No promise is awaited by its own task."""
    callbacks = scope.state.callbacks.at
    for id in scope.promises:
        awaiters = callbacks.get(id, NO_ENDS)
        if awaiters:
            scope.reached += 1
            if id in awaiters:
                yield Violation((id,), "awaits itself")


@on_state("promises")
def well_formed_promise_created_at_lte_now(scope: StateScope) -> Iterator[Violation]:
    """No promise is created in the future."""
    for p in scope.promises.values():
        scope.reached += 1
        if p.created_at > scope.now:
            yield Violation((p.id,), f"created at {p.created_at}")


@on_state("promises")
def well_formed_promise_settled_at_lte_now(scope: StateScope) -> Iterator[Violation]:
    """No promise is settled in the future."""
    for p in scope.promises.values():
        if p.settled_at is not None:
            scope.reached += 1
            if p.settled_at > scope.now:
                yield Violation((p.id,), f"settled at {p.settled_at}")
