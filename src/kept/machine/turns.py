"""The lanes of a queue take turns: each starts as many tasks as it weighs, then the next one does.

Whose turn it was is an entry of the queue, so turns go on where they were, whoever claims. Only the
lanes that are looked at are loaded, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from kept.machine.effects import read_promise
from kept.machine.lane_ring import LaneRing
from kept.machine.limits import Refusal, lane_refusal, limits_of
from kept.machine.not_loaded import NotLoaded
from kept.machine.step import Step
from kept.protocol.entries import Entry, EntryKey, EntryKind, QueueSettings, Turn
from kept.protocol.records import Delivery, Promise, Task, TaskState
from kept.protocol.storage import Head, LaneWindow, Reads

# How many lanes, and tasks of each, are loaded at first; more when a claim wants more.
FIRST_LANES: Final = 32
FIRST_TASKS: Final = 4
LANES_FACTOR: Final = 4
# A claim that finds this many lanes at their limits looks no further.
MAX_LANES: Final = 16_384


@lru_cache(maxsize=1_024)
def turn_key(queue: str) -> EntryKey:
    """The key of whose turn it is in a queue."""
    return EntryKey(EntryKind.TURN, queue)


def tasks_by_turns(
    step: Step, head: Head, settings: QueueSettings, limited: list[Refusal]
) -> Iterator[tuple[Task, Promise]]:
    """Tasks that may start now, lane after lane; `limited` gains why lanes were passed over.

    What is yielded is taken before the next one is asked for.
    """
    blocked: set[str] = set()
    while True:
        turn = _turn(step, head.queue)
        start = turn.lane
        if turn.taken >= _weight(settings, turn.lane):
            # No name lies between one and itself with a NUL behind it.
            start += "\0"
        found = _next(step, head, settings, start, blocked, limited)
        if found is None:
            return
        lane, task, promise = found
        taken = turn.taken + 1 if lane == turn.lane and start == lane else 1
        step.records.put_entry(Entry(turn_key(head.queue), Turn(lane, taken)))
        yield task, promise


def _turn(step: Step, queue: str) -> Turn:
    entry = step.records.entry(turn_key(queue))
    if entry is None:
        return Turn("", 0)
    assert isinstance(entry.data, Turn)
    return entry.data


def _weight(settings: QueueSettings, lane: str) -> int:
    return limits_of(settings, lane).weight or 1


def _next(
    step: Step,
    head: Head,
    settings: QueueSettings,
    start: str,
    blocked: set[str],
    limited: list[Refusal],
) -> tuple[str, Task, Promise] | None:
    ring, order = _order(step, head, start)
    born = _became_pending(step, head)
    if ring.complete:
        order = _with_new_lanes(order, born, start)
    for lane in order:
        if lane in blocked:
            continue
        refusal = lane_refusal(step, head.queue, settings, lane)
        if refusal is not None:
            blocked.add(lane)
            limited.append(refusal)
            continue
        found = _first(step, ring, lane, born.get(lane, []))
        if found is not None:
            return lane, *found
        if ring.may_have_more(lane):
            raise NotLoaded(_wider(head, ring, tasks=2))
    if ring.complete or ring.window.lanes >= MAX_LANES:
        return None
    raise NotLoaded(_wider(head, ring, lanes=LANES_FACTOR))


def _order(step: Step, head: Head, start: str) -> tuple[LaneRing, list[str]]:
    """The lanes from a name on, as far as they are known; none where too many have been looked at."""
    ring = step.records.heads.ring(head)
    if ring is None:
        window = LaneWindow(start, FIRST_LANES, FIRST_TASKS)
        raise NotLoaded(Reads(lanes={head: window}))
    order = ring.order_from(start)
    if order is None:
        if ring.window.lanes < MAX_LANES:
            raise NotLoaded(_wider(head, ring, lanes=LANES_FACTOR))
        order = []
    return ring, order


def _wider(head: Head, ring: LaneRing, lanes: int = 1, tasks: int = 1) -> Reads:
    """More from where the window begins: a claim that passed lanes is applied anew, from there."""
    window = ring.window
    wider = LaneWindow(window.start, window.lanes * lanes, window.tasks * tasks)
    return Reads(lanes={head: wider})


def _became_pending(step: Step, head: Head) -> dict[str, list[Task]]:
    """Tasks that may be claimed since this batch only, by lane."""
    found: dict[str, list[Task]] = {}
    for task in step.records.heads.pending(head):
        if task.lane is not None:
            found.setdefault(task.lane, []).append(task)
    return found


def _with_new_lanes(order: list[str], born: dict[str, list[Task]], start: str) -> list[str]:
    """The order with the lanes that this batch brought, each in its place."""
    new = born.keys() - set(order)
    if not new:
        return order
    return sorted([*order, *new], key=lambda lane: (lane < start, lane))


def _first(step: Step, ring: LaneRing, lane: str, born: list[Task]) -> tuple[Task, Promise] | None:
    """The lane's first task that is due, of those that are known."""
    records = step.records
    stored = [records.task(id) for id in ring.fronts.get(lane, ())]
    known = {task.id: task for task in stored if task is not None}
    for task in born:
        known[task.id] = records.task(task.id) or task
    for task in sorted(known.values(), key=lambda task: task.rank):
        if not is_due(task, step.now):
            continue
        promise = read_promise(step, task.id)
        if promise is not None and promise.pending:
            return task, promise
    return None


def is_due(task: Task, now: int) -> bool:
    """Whether a claim may take it."""
    return (
        task.state is TaskState.PENDING
        and task.delivery is Delivery.PULL
        and task.retry_at is not None
        and task.retry_at <= now
    )
