"""Bugs of cancellation: what it reaches and must not, and what it does not reach."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from kept.machine.step import Step
from kept.protocol import tags as tag
from kept.protocol.entries import Cancellation, Entry
from kept.protocol.records import Promise, TaskState
from kept.sim.zoo.bug import Menagerie

CANCELLATIONS: Final = Menagerie()
bug = CANCELLATIONS.bug


@bug(
    "detached-canceled",
    "A cancellation spreads to detached work.",
    "kept.machine.cancellation:_reached",
)
def _detached_canceled(original: Any) -> Any:
    def reached(step: Step, promise: Promise, data: Cancellation, id: str) -> Promise | None:
        child = step.records.promise(id)
        if child is not None and child.tags.get(tag.DETACHED) == "true":
            return child
        found: Promise | None = original(step, promise, data, id)
        return found

    return reached


@bug(
    "other-trees-canceled",
    "A cancellation spreads to what has the same parent and another origin.",
    "kept.machine.cancellation:_reached",
)
def _other_trees_canceled(original: Any) -> Any:
    def reached(step: Step, promise: Promise, data: Cancellation, id: str) -> Promise | None:
        child = step.records.promise(id)
        if child is not None and child.origin != promise.origin:
            return child
        found: Promise | None = original(step, promise, data, id)
        return found

    return reached


@bug(
    "clean-up-canceled",
    "A cancellation that was asked for spreads to what the code does to clean up.",
    "kept.machine.cancellation:_reached",
)
def _clean_up_canceled(original: Any) -> Any:
    def reached(step: Step, promise: Promise, data: Cancellation, id: str) -> Promise | None:
        child = step.records.promise(id)
        if child is not None and child.tags.get(tag.COMPENSATION) == "true":
            return child
        found: Promise | None = original(step, promise, data, id)
        return found

    return reached


@bug(
    "grandchildren-not-reached",
    "A cancellation ends with the children: what they called goes on.",
    "kept.machine.cancellation:_put",
)
def _grandchildren_not_reached(original: Any) -> Any:
    def put(step: Step, promise: Promise, known: Any, wanted: Cancellation) -> None:
        if wanted.root is not None:
            wanted = replace(wanted, after=None)
        original(step, promise, known, wanted)

    return put


@bug(
    "one-page-of-children",
    "Of the children only those that one commit has room for are reached.",
    "kept.machine.cancellation:_spread",
)
def _one_page_of_children(original: Any) -> Any:
    def spread(step: Step, promise: Promise, data: Cancellation, after: str) -> None:
        original(step, promise, data, after)
        entry = step.records.entry(_key(promise.id))
        if entry is not None and isinstance(entry.data, Cancellation):
            step.records.put_entry(replace(entry, data=replace(entry.data, after=None)))

    return spread


def _key(id: str) -> Any:
    from kept.machine.cancellation import cancel_key

    return cancel_key(id)


@bug(
    "canceled-sleeper-not-woken",
    "Suspended work that is asked to stop sleeps on.",
    "kept.machine.cancellation:_requested",
)
def _canceled_sleeper_not_woken(original: Any) -> Any:
    def requested(step: Step, promise: Promise) -> Promise:
        task = step.records.task(promise.id)
        if task is None or task.state is not TaskState.SUSPENDED:
            found: Promise = original(step, promise)
            return found
        promise = replace(promise, cancel_requested_at=step.now)
        step.records.put_promise(promise)
        return promise

    return requested


@bug(
    "no-grace",
    "Work that is asked to stop is stopped as soon as the background looks at it.",
    "kept.machine.cancellation:look_at_cancellation",
)
def _no_grace(original: Any) -> Any:
    def look(step: Step, entry: Entry) -> None:
        assert isinstance(entry.data, Cancellation)
        original(step, replace(entry, data=replace(entry.data, requested_at=0)))

    return look


@bug(
    "grace-without-end",
    "Work that does not stop when it is asked to is never stopped.",
    "kept.machine.cancellation:look_at_cancellation",
)
def _grace_without_end(original: Any) -> Any:
    def look(step: Step, entry: Entry) -> None:
        data = entry.data
        promise = step.records.promise(entry.key.name)
        if not isinstance(data, Cancellation) or promise is None or data.after is not None:
            original(step, entry)
        elif promise.pending:
            step.records.put_entry(replace(entry, due_at=step.now + 60_000))

    return look
