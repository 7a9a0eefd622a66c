"""What retention promises beside what may go at all (protocol B6; `is_retained_away`)."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.registry import Violation, on_step
from kept.check.properties.scopes import StepScope, is_live


@on_step("promises")
def preserved_tree_of_something_pending(scope: StepScope) -> Iterator[Violation]:
    """No promise leaves while another of its origin is pending."""
    gone = _removed(scope)
    if not gone:
        return
    live = {p.origin: p.id for p in scope.b.promises.values() if is_live(p, scope.now)}
    for id, origin in gone:
        scope.reached += 1
        if origin in live:
            yield Violation((id, live[origin]), f"left, and {live[origin]} is pending")


@on_step("promises")
def preserved_root_until_the_last(scope: StepScope) -> Iterator[Violation]:
    """A root leaves with or after all others of its origin: until then a create of its id is
    answered with it, and no new run finds what the old one left."""
    gone = _removed(scope)
    if not gone:
        return
    left = {p.origin: p.id for p in scope.b.promises.values()}
    for id, origin in gone:
        scope.reached += 1
        if id == origin and origin in left:
            yield Violation((id, left[origin]), f"left before {left[origin]}")


def _removed(scope: StepScope) -> list[tuple[str, str]]:
    """The promises that the step removed, each with its origin."""
    return [(id, p.origin) for id, p, q in scope.promises if p is not None and q is None]
