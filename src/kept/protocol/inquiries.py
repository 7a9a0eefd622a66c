"""Questions about one piece of work, and their answers: why it does not run (protocol B9), and what
became of its webhooks (A6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from msgspec import field

from kept.protocol.records import PromiseState, TaskState
from kept.protocol.requests import Id, Request
from kept.protocol.responses import Result
from kept.protocol.texts import id_problem


class TaskExplain(Request):
    """Why the work of a promise does not run, or what it is doing."""

    kind: ClassVar[str] = "task.explain"
    id: Id


class Holding(Result, frozen=True):
    """A lease: which work, by which worker, until when (ms)."""

    id: str
    pid: str
    expires_at: int


class Reason(Result, frozen=True):
    """One thing that work waits for. `until` (ms): when time alone ends it. `limit` is how much there
    may be of what `holders` have, the first of them."""

    kind: str
    text: str
    until: int | None = None
    limit: int | None = None
    holders: list[Holding] = field(default_factory=list)


class AwaitedPromise(Result, frozen=True):
    """A promise that suspended work waits for, and what that waits for in turn."""

    id: str
    state: PromiseState
    text: str
    until: int | None = None


class Explanation(Result, frozen=True):
    """`text` is the answer in one sentence; `reasons` are all that were found, the first one says
    the same.

    `before` counts the jobs that come before it in its lane, or is the least that there are
    (`before_at_least`); `estimate` (ms) is how long those take at the pace of the last minute, where
    that is known. `workers` announce that they run it.
    """

    id: str
    state: PromiseState
    text: str
    reasons: list[Reason]
    task: TaskState | None = None
    queue: str | None = None
    lane: str | None = None
    function: str | None = None
    failures: int = 0
    before: int | None = None
    before_at_least: bool = False
    estimate: int | None = None
    workers: int | None = None
    awaits: tuple[AwaitedPromise, ...] = ()

    def __str__(self) -> str:
        """The sentence, then what else was found, a line each."""
        others = [f"  {reason.text}" for reason in self.reasons[1:]]
        awaited = [f"  {each.id}: {each.text}" for each in self.awaits]
        return "\n".join([self.text, *others, *awaited])


class PromiseDeliveries(Request):
    """What became of a promise's webhooks (A6)."""

    kind: ClassVar[str] = "promise.deliveries"
    id: Id


class DeliveryRecord(Result, frozen=True):
    """A try that ended at `at` (ms), after `took` ms: the `number`-th of its message. Without an
    `error` it was delivered; else `next_at` (ms) is the next one."""

    at: int
    address: str
    number: int
    took: int
    error: str | None = None
    next_at: int | None = None


class DeliveriesResult(Result, frozen=True):
    """The latest tries, oldest first."""

    deliveries: list[DeliveryRecord]


INQUIRY_REQUESTS: tuple[type[Request], ...] = (TaskExplain, PromiseDeliveries)

INQUIRY_CHECKS: Final[dict[type[Request], Callable[[Any, frozenset[str]], str | None]]] = {
    TaskExplain: lambda request, _: id_problem(request.id),
    PromiseDeliveries: lambda request, _: id_problem(request.id),
}
