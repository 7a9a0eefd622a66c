"""Why work does not run: told from a few records, read without waiting for a writer (protocol B9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kept.engine.explained_queue import QueueCase
from kept.engine.lookup import Lookup
from kept.engine.pace import Pace
from kept.protocol import tags as tag
from kept.protocol.inquiries import AwaitedPromise, Explanation, Holding, Reason, TaskExplain
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import DeadLetter, Delivery, Promise, PromiseState, Task, TaskState
from kept.protocol.responses import NOT_FOUND, OK, Response
from kept.protocol.spoken import timestamp
from kept.stores.base import Store

# How many promises that suspended work awaits are told of.
MAX_AWAITED: Final = 20
_ENDED: Final = {
    PromiseState.RESOLVED: "It is done",
    PromiseState.REJECTED: "It failed, and is over",
    PromiseState.REJECTED_CANCELED: "It was canceled, and is over",
    PromiseState.REJECTED_TIMEDOUT: "Its deadline passed, so it is over",
}


class Explaining:
    """Answers `task.explain`."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace

    async def answer(
        self, request: TaskExplain, now: int, tenant: str, prefix: str | None
    ) -> Response:
        """The explanation at `now` (ms). Of ids that do not begin with `prefix` nothing is told."""
        case = _Case(Lookup(self._store, tenant), self._pace, now, prefix or "")
        explained = await case.explain(request.id)
        if explained is None:
            return Response(NOT_FOUND, f"promise {request.id} does not exist")
        return Response(OK, explained)


class _Case:
    """One question."""

    def __init__(self, lookup: Lookup, pace: Pace, now: int, prefix: str) -> None:
        self._lookup = lookup
        self._pace = pace
        self._now = now
        self._prefix = prefix

    async def explain(self, id: str, *, deeper: bool = True) -> Explanation | None:
        """What is known of a promise and its work; `deeper`: also of what that awaits."""
        found = await self._lookup.promise(id)
        if found is None:
            return None
        promise = found.project(self._now)
        task = await self._lookup.task(promise)
        if not promise.pending:
            return _explanation(promise, task, [await self._ended(promise)])
        if task is None:
            return _explanation(promise, task, [_outside(promise)])
        canceled = _canceled(promise)
        if task.state is TaskState.SUSPENDED:
            awaits, complete = await self._awaits(task, deeper=deeper)
            reasons = [_suspended(awaits, complete=complete), *canceled]
            return _explanation(promise, task, reasons, awaits=awaits)
        if task.state is TaskState.HALTED:
            return _explanation(promise, task, [await self._halted(promise), *canceled])
        if task.state is TaskState.ACQUIRED:
            return _explanation(promise, task, [self._running(task), *canceled])
        if task.delivery is Delivery.PULL:
            queue = QueueCase(self._lookup, self._pace, self._now, self._prefix)
            reasons, line = await queue.explain(task)
            return _explanation(
                promise,
                task,
                [*reasons, *canceled],
                before=line.before,
                before_at_least=line.at_least,
                estimate=line.estimate_ms,
                workers=line.workers,
            )
        return _explanation(promise, task, [self._offered(promise, task), *canceled])

    async def _ended(self, promise: Promise) -> Reason:
        text = f"{_ENDED[promise.state]} since {timestamp(promise.settled_at or 0)}."
        letter = await self._lookup.dead_letter(promise.id)
        if letter is None:
            return Reason("settled", text)
        return Reason(
            "dead", f"{_given_up(letter)}; `kept dead replay {promise.id}` does it again."
        )

    async def _halted(self, promise: Promise) -> Reason:
        letter = await self._lookup.dead_letter(promise.id)
        if letter is None:
            text = f"It is halted; `kept task continue {promise.id}` lets it go on."
            return Reason("halted", text)
        text = f"{_given_up(letter)}, and is halted; `kept dead replay {promise.id}` lets it go on."
        return Reason("halted", text)

    def _running(self, task: Task) -> Reason:
        assert task.expires_at is not None
        holder = Holding(task.id, task.pid or "", task.expires_at)
        text = (
            f"Worker {task.pid} works on it (attempt {task.failures + 1}), "
            f"and has it until {timestamp(task.expires_at)} at least."
        )
        if task.expires_at <= self._now:
            text = f"The lease of worker {task.pid} ran out, so it is about to be given up."
        return Reason("running", text, task.expires_at, holders=[holder])

    def _offered(self, promise: Promise, task: Task) -> Reason:
        assert task.retry_at is not None
        if task.delivery is Delivery.NEVER:
            text = f"It is a timer, and is done at {timestamp(promise.timeout_at)}."
            return Reason("timer", text, promise.timeout_at)
        when = timestamp(task.retry_at)
        if task.retry_at > self._now and promise.tags.get(tag.DELAY) == str(task.retry_at):
            return Reason("delayed", f"It must not start before {when}.", task.retry_at)
        text = f"It is offered to {promise.target}, where nobody has taken it; again at {when}."
        return Reason("offered", text, task.retry_at)

    async def _awaits(self, task: Task, *, deeper: bool) -> tuple[list[AwaitedPromise], bool]:
        lookup = self._lookup
        ids, complete = await lookup.store.awaited_by(lookup.tenant, task.id, MAX_AWAITED)
        found = [await self._awaited(id, deeper=deeper) for id in ids]
        return found, complete

    async def _awaited(self, id: str, *, deeper: bool) -> AwaitedPromise:
        if not id.startswith(self._prefix):
            return AwaitedPromise(id, PromiseState.PENDING, "It is not told to this token.")
        # What is awaited is told with what that awaits by name; there it ends.
        explained = await self.explain(id, deeper=False) if deeper else None
        if explained is None:
            return AwaitedPromise(id, PromiseState.PENDING, "")
        return AwaitedPromise(id, explained.state, explained.text, explained.reasons[0].until)


def _explanation(
    promise: Promise,
    task: Task | None,
    reasons: list[Reason],
    *,
    before: int | None = None,
    before_at_least: bool = False,
    estimate: int | None = None,
    workers: int | None = None,
    awaits: Sequence[AwaitedPromise] = (),
) -> Explanation:
    return Explanation(
        promise.id,
        promise.state,
        reasons[0].text,
        reasons,
        task.state if task is not None and promise.pending else None,
        task.queue if task is not None else None,
        task.lane if task is not None else None,
        promise.function,
        task.failures if task is not None else 0,
        before,
        before_at_least,
        estimate,
        workers,
        tuple(awaits),
    )


def _suspended(awaits: list[AwaitedPromise], *, complete: bool) -> Reason:
    names = ", ".join(each.id for each in awaits)
    if not complete:
        names = f"{names} and perhaps others" if names else "promises that were not found"
    only = awaits[0] if len(awaits) == 1 and complete else None
    if only is not None and only.text:
        text = f"It waits for {only.id}: {only.text[0].lower()}{only.text[1:]}"
        return Reason("suspended", text, only.until)
    return Reason("suspended", f"It waits for {names or 'promises that have just settled'}.")


def _outside(promise: Promise) -> Reason:
    ends = promise.timeout_at if promise.timeout_at != NEVER_MS else None
    text = "Nobody works on it: it waits until somebody settles it"
    if ends is not None:
        text += f", or for its deadline at {timestamp(ends)}"
    return Reason("external", f"{text}.", ends)


def _canceled(promise: Promise) -> list[Reason]:
    if promise.cancel_requested_at is None:
        return []
    text = f"It is asked to stop since {timestamp(promise.cancel_requested_at)}."
    return [Reason("canceling", text)]


def _given_up(letter: DeadLetter) -> str:
    failures = f"{letter.failures} failure{'' if letter.failures == 1 else 's'}"
    times = f"{letter.replays} time{'' if letter.replays == 1 else 's'}"
    replayed = f", and was replayed {times}" if letter.replays else ""
    return f"It was given up on at {timestamp(letter.died_at)}: {letter.reason}, after {failures}{replayed}"
