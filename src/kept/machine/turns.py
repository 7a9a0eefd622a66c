"""The lanes of a queue take turns: each starts as many tasks as it weighs, then the next one does.

Whose turn it was is an entry of the queue, so turns go on where they were, whoever claims. What is
loaded is what claims take: the names of so many lanes, and of each as many tasks as its turns want.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from kept.machine.effects import read_promise
from kept.machine.front import Front
from kept.machine.lane_ring import LaneRing
from kept.machine.limits import lane_refusal, lanes_limits, limits_of
from kept.machine.not_loaded import NotLoaded
from kept.machine.refusals import Refusal
from kept.machine.step import Step
from kept.protocol.entries import Entry, EntryKey, EntryKind, QueueSettings, Turn
from kept.protocol.records import Delivery, Promise, Task, TaskState
from kept.protocol.storage import Head, LaneHead, LaneSpan, Reads

# Of the tasks that all claims of a batch want, so many are loaded at once.
MAX_WANTED: Final = 1_024
# How many times as many lanes are looked at when all that are known have nothing to give.
LANES_FACTOR: Final = 4
# How many times as many tasks of a lane are loaded when it has given all that are known.
TASKS_FACTOR: Final = 2
# A claim that finds this many lanes at their limits looks no further; the next one goes on there.
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
    while True:
        turn = _turn(step, head.queue)
        start = turn.lane
        if turn.taken >= _weight(settings, turn.lane):
            # No name lies between one and itself with a NUL behind it.
            start += "\0"
        ring = _ring(step, head, start)
        found = _next(step, head, ring, settings, start)
        refusal = ring.refusal()
        if refusal is not None and refusal not in limited:
            limited.append(refusal)
        if found is None:
            return
        lane, task, promise = found
        taken = turn.taken + 1 if lane == turn.lane and start == lane else 1
        _put_turn(step, head.queue, Turn(lane, taken))
        yield task, promise


def _turn(step: Step, queue: str) -> Turn:
    entry = step.records.entry(turn_key(queue))
    if entry is None:
        return Turn("", 0)
    assert isinstance(entry.data, Turn)
    return entry.data


def _put_turn(step: Step, queue: str, turn: Turn) -> None:
    step.records.put_entry(Entry(turn_key(queue), turn))


def _weight(settings: QueueSettings, lane: str) -> int:
    if settings.lane is None and not settings.lanes:
        return 1
    return limits_of(settings, lane).weight or 1


def _ring(step: Step, head: Head, start: str) -> LaneRing:
    """The lanes of a head, at least where the turn stands."""
    ring = step.records.heads.ring(head)
    if ring is None or not ring.reaches(start):
        span = LaneSpan(start, min(step.records.heads.asked(head), MAX_WANTED))
        raise NotLoaded(Reads(lanes={head: span}))
    ring.at(step.now)
    return ring


def _next(
    step: Step, head: Head, ring: LaneRing, settings: QueueSettings, start: str
) -> tuple[str, Task, Promise] | None:
    """The lane whose turn it is with its first task that is due; None where no lane has any."""
    if ring.unchecked:
        step.records.require(lanes_limits(head.queue, settings, ring.unchecked))
        ring.unchecked.clear()
    dry: list[str] = []
    shut: dict[str, Refusal] = {}
    found = None
    for lane in ring.lanes_from(start):
        refusal = lane_refusal(step, head.queue, settings, lane)
        if refusal is not None:
            shut[lane] = refusal
            continue
        front = ring.front(lane)
        if front is None:
            raise NotLoaded(Reads(fronts=_first_fronts(step, head, ring, settings, lane)))
        first = _first(step, front)
        if first is not None:
            found = lane, *first
            break
        if front.more:
            raise NotLoaded(Reads(fronts=_longer_fronts(head, ring)))
        dry.append(lane)
    if dry or shut:
        ring.take_out(dry, shut)
    if found is not None or ring.complete:
        return found
    if len(ring) < MAX_LANES:
        raise NotLoaded(Reads(lanes={head: ring.next_span(LANES_FACTOR)}))
    _put_turn(step, head.queue, Turn(ring.last, _weight(settings, ring.last)))
    return None


def _first_fronts(
    step: Step, head: Head, ring: LaneRing, settings: QueueSettings, start: str
) -> dict[LaneHead, int]:
    """How many tasks to load of which lanes from one on, so that claims find all they want: of each
    lane what its turns will give, as far as that can be told."""
    wanted = min(step.records.heads.asked(head), MAX_WANTED)
    counts: dict[LaneHead, int] = {}
    total = 0
    for lane in ring.lanes_from(start):
        if total >= wanted:
            break
        if ring.front(lane) is None and not lane_refusal(step, head.queue, settings, lane):
            count = min(_weight(settings, lane), wanted)
            counts[LaneHead(head, lane)] = count
            total += count
    if total < wanted and ring.complete:
        rounds = -(-wanted // total)
        counts = {front: min(count * rounds, wanted) for front, count in counts.items()}
    return counts


def _longer_fronts(head: Head, ring: LaneRing) -> dict[LaneHead, int]:
    """More of all lanes that have more: where one has given all that is known, others soon will."""
    return {
        LaneHead(head, lane): front.asked * TASKS_FACTOR
        for lane, front in ring.fronts_with_more().items()
    }


def _first(step: Step, front: Front) -> tuple[Task, Promise] | None:
    """The first task that is due, of those that are known."""
    for id in front.candidates(step.now):
        task = step.records.task(id)
        if task is None or not is_due(task, step.now):
            continue
        promise = read_promise(step, id)
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
