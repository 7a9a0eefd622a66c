"""Four conditions that the base machine lets be broken and our doors close."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.registry import Violation, on_config, on_state
from kept.check.properties.scopes import ConfigScope, StateScope
from kept.protocol import tags as tag
from kept.protocol.records import TaskState


@on_state("tasks")
def well_formed_task_ttl_positive(scope: StateScope) -> Iterator[Violation]:
    """The lease of an acquired task has a length above 0."""
    for t in scope.tasks.values():
        if t.state is TaskState.ACQUIRED:
            scope.reached += 1
            if t.ttl is None or t.ttl <= 0:
                yield Violation((t.id,), f"acquired with ttl {t.ttl}")


@on_state("promises")
def well_formed_promise_target_is_nonempty(scope: StateScope) -> Iterator[Violation]:
    """A target, where there is one, is not the empty text."""
    for p in scope.promises.values():
        if p.target is not None:
            scope.reached += 1
            if not p.target:
                yield Violation((p.id,), "the target is empty")


@on_state("promises")
def well_formed_promise_delay_before_deadline(scope: StateScope) -> Iterator[Violation]:
    """A delay, where there is one, is a whole number of milliseconds and before the deadline."""
    for p in scope.promises.values():
        delay = p.tags.get(tag.DELAY)
        if delay is not None:
            scope.reached += 1
            if not (delay.isascii() and delay.isdigit()) or int(delay) >= p.timeout_at:
                yield Violation((p.id,), f"delayed until {delay}, deadline {p.timeout_at}")


@on_config
def well_formed_config_retry_positive(scope: ConfigScope) -> Iterator[Violation]:
    """The time to the next try is above 0, else the retry step never ends."""
    scope.reached += 1
    if scope.retry_timeout_ms <= 0:
        yield Violation((), f"the retry timeout is {scope.retry_timeout_ms} ms")
