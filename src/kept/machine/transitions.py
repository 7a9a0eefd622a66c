"""The transitions of promises and tasks, as data.

Every stored change of state is one of these, and the working set asserts it. The diagrams in
ARCHITECTURE.md are generated from this table.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kept.protocol.records import PromiseState, TaskState


class PromiseTransition(NamedTuple):
    """A change of a promise's state, and what may cause it."""

    before: PromiseState
    after: PromiseState
    causes: tuple[str, ...]


class TaskTransition(NamedTuple):
    """A change of a task's state, and what may cause it."""

    before: TaskState
    after: TaskState
    causes: tuple[str, ...]


_SETTLING: Final = ("promise.settle", "task.fulfill", "task.fence", "task.record")
_P, _T = PromiseState, TaskState

PROMISE_TRANSITIONS: Final = (
    PromiseTransition(_P.PENDING, _P.RESOLVED, (*_SETTLING, "signal.send", "deadline of a timer")),
    PromiseTransition(
        _P.PENDING,
        _P.REJECTED,
        (*_SETTLING, "task.nack exhausted", "lease expired for the last time"),
    ),
    PromiseTransition(_P.PENDING, _P.REJECTED_CANCELED, (*_SETTLING, "promise.cancel")),
    PromiseTransition(_P.PENDING, _P.REJECTED_TIMEDOUT, ("deadline",)),
)

_SETTLED: Final = ("promise settled",)

TASK_TRANSITIONS: Final = (
    TaskTransition(_T.PENDING, _T.ACQUIRED, ("task.acquire", "task.create", "task.claim")),
    TaskTransition(_T.PENDING, _T.HALTED, ("task.halt",)),
    TaskTransition(_T.PENDING, _T.FULFILLED, _SETTLED),
    TaskTransition(
        _T.ACQUIRED,
        _T.PENDING,
        ("task.release", "task.nack", "lease expired", "task.suspend of one asked to stop"),
    ),
    TaskTransition(_T.ACQUIRED, _T.SUSPENDED, ("task.suspend",)),
    TaskTransition(_T.ACQUIRED, _T.HALTED, ("task.halt", "exhausted")),
    TaskTransition(_T.ACQUIRED, _T.FULFILLED, ("task.fulfill", *_SETTLED)),
    TaskTransition(_T.SUSPENDED, _T.PENDING, ("awaited promise settled", "promise.cancel")),
    TaskTransition(_T.SUSPENDED, _T.HALTED, ("task.halt",)),
    TaskTransition(_T.SUSPENDED, _T.FULFILLED, _SETTLED),
    TaskTransition(_T.HALTED, _T.PENDING, ("task.continue", "dead.replay")),
    TaskTransition(_T.HALTED, _T.FULFILLED, _SETTLED),
)

PROMISE_EDGES: Final = frozenset(
    {(t.before, t.after) for t in PROMISE_TRANSITIONS} | {(s, s) for s in PromiseState}
)
TASK_EDGES: Final = frozenset(
    {(t.before, t.after) for t in TASK_TRANSITIONS} | {(s, s) for s in TaskState}
)


def state_diagram(transitions: tuple[PromiseTransition | TaskTransition, ...]) -> str:
    """A Mermaid state diagram of a table, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    lines += [f"    {t.before} --> {t.after}: {', '.join(t.causes)}" for t in transitions]
    ends = sorted({t.after for t in transitions} - {t.before for t in transitions})
    lines += [f"    {state} --> [*]" for state in ends]
    return "\n".join(lines)
