"""What the keys of creates promise (protocol B4), told from records alone."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.registry import Violation, on_state, on_step
from kept.check.properties.scopes import StateScope, StepScope, is_live
from kept.protocol.entries import Dedupe, EntryKey, EntryKind, KeyHolder, Singleton
from kept.protocol.keys import keys_of
from kept.protocol.records import Promise, PromiseState


@on_step("promises")
def consistent_one_live_promise_per_dedupe_key(scope: StepScope) -> Iterator[Violation]:
    """A promise is born under a dedupe key only while no other one that holds it is live and no
    window lasts."""
    for id, key in _born_with(scope, EntryKind.DEDUPE):
        held = scope.delta.entries.get(key)
        before = held.data if held is not None else None
        if not isinstance(before, Dedupe) or before.promise == id:
            continue
        scope.reached += 1
        holder = scope.promise_before(before.promise)
        if before.until > scope.now or (holder is not None and is_live(holder, scope.now)):
            yield Violation((id, before.promise), "born under a dedupe key that was held")


@on_step("promises")
def consistent_one_live_promise_per_singleton_key(scope: StepScope) -> Iterator[Violation]:
    """A promise is born under a singleton key only if no other one of it stays live."""
    for id, key in _born_with(scope, EntryKind.SINGLETON):
        scope.reached += 1
        for other in scope.b.promises.values():
            if other.id == id or not is_live(other, scope.now):
                continue
            if keys_of(other.tags).get(EntryKind.SINGLETON) == key:
                yield Violation((id, other.id), "two live promises of one singleton key")


@on_state("promises")
def consistent_key_is_held_by_its_promise(scope: StateScope) -> Iterator[Violation]:
    """An unsettled promise holds the singleton key and the dedupe key that it names; who holds a
    key exists and names it."""
    for promise in scope.promises.values():
        for kind, key in keys_of(promise.tags).items():
            entry = scope.state.entries.get(key)
            data = entry.data if entry is not None else None
            scope.reached += 1
            if isinstance(data, KeyHolder):
                holder = scope.state.promises.get(data.promise)
                if holder is None or keys_of(holder.tags).get(kind) != key:
                    yield Violation((promise.id, data.promise), f"{key} is held by {holder}")
                elif isinstance(data, Singleton) and not holder.pending:
                    yield Violation((holder.id,), f"{key} is held by what is settled")
            is_alone = kind in (EntryKind.DEDUPE, EntryKind.SINGLETON)
            if promise.pending and is_alone and getattr(data, "promise", None) != promise.id:
                yield Violation((promise.id,), f"is pending, and {key} is held by {data}")


def _born_with(scope: StepScope, kind: EntryKind) -> Iterator[tuple[str, EntryKey]]:
    """Promises that this step created under a key of a kind, and live."""
    for id, p, q in scope.promises:
        if p is None and q is not None and q.state is PromiseState.PENDING:
            key = _key(q, kind)
            if key is not None:
                yield id, key


def _key(promise: Promise, kind: EntryKind) -> EntryKey | None:
    return keys_of(promise.tags).get(kind)
