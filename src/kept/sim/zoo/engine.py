"""Bugs of the engine: commits and their answers, the clock, timers, waiting, the outbox."""

from __future__ import annotations

from typing import Any, Final

from kept.engine.committer import Item
from kept.machine.background import DeliveredMessage
from kept.protocol.responses import Response
from kept.protocol.storage import Changes, Notice
from kept.sim.zoo.bug import Menagerie

ENGINE: Final = Menagerie()
bug = ENGINE.bug

COMMIT_FAULTS: Final = (
    "commit_fails",
    "store_outage",
    "crash_before_commit",
    "server_crash",
)


# -- commits and answers


@bug(
    "reply-before-commit",
    "A batch is answered before its commit.",
    "kept.engine.committer:_Batch.run",
    faults=COMMIT_FAULTS,
)
def _reply_before_commit(original: Any) -> Any:
    class Hasty:
        """A transaction that answers before it commits."""

        def __init__(self, inner: Any, committer: Any, items: list[Item]) -> None:
            self._inner = inner
            self._committer = committer
            self._items = items

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
            self._committer._answer(self._items)
            await self._inner.commit(batch_id, now, notice)

    async def run(self: Any, items: list[Item]) -> Notice:
        self._transaction = Hasty(self._transaction, self._committer, items)
        notice: Notice = await original(self, items)
        return notice

    return run


@bug(
    "failed-commit-answered",
    "The requests of a commit that failed are answered as if it had not.",
    "kept.engine.committer:Committer._refuse",
    faults=("commit_fails", "store_outage"),
)
def _failed_commit_answered(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "edges-in-a-second-commit",
    "Callbacks and listeners are stored in a commit of their own, after the one that suspends.",
    "kept.engine.committer:_Batch.run",
)
def _edges_in_a_second_commit(original: Any) -> Any:
    class Halved:
        """A transaction that keeps the edges back."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self.kept: list[tuple[str, dict[Any, bool], dict[Any, bool]]] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def save(self, tenant: str, changes: Any) -> None:
            self.kept.append((tenant, changes.callbacks, changes.listeners))
            changes.callbacks, changes.listeners = {}, {}
            await self._inner.save(tenant, changes)

        async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
            await self._inner.commit(batch_id, now, notice)

    async def run(self: Any, items: list[Item]) -> Notice:
        halved = self._transaction = Halved(self._transaction)
        notice: Notice = await original(self, items)
        committer = self._committer
        if any(callbacks or listeners for _, callbacks, listeners in halved.kept):
            committer._runtime.spawn(_later(committer, halved.kept, self._now), "zoo-edges")
        return notice

    return run


async def _later(committer: Any, kept: list[Any], now: int) -> None:
    async with committer._store.transaction() as transaction:
        for tenant, callbacks, listeners in kept:
            changes = Changes(callbacks=callbacks, listeners=listeners)
            await transaction.save(tenant, changes)
        now = max(now, transaction.clock_floor)
        await transaction.commit(committer.new_batch_id(), now, Notice())


@bug(
    "unknown-commit-called-failed",
    "A commit of unknown outcome is answered as one that failed: clients repeat what happened.",
    "kept.engine.committer:CommitUnknownError",
    faults=("commit_unclear",),
)
def _unknown_commit_called_failed(_original: Any) -> Any:
    return type("NeverRaisedError", (Exception,), {})


@bug(
    "claims-not-handed-back",
    "What a claim got that was given up during its commit is not released.",
    "kept.engine.committer:Committer._hand_back",
    unfound="The leases expire, and the work goes on: nothing is lost but time.",
)
def _claims_not_handed_back(_original: Any) -> Any:
    return lambda *_: None


# -- time


@bug(
    "no-clock-floor",
    "A commit's time is this process's clock, whatever earlier commits had: time goes back.",
    "kept.engine.committer:_Batch.__init__",
    fits=lambda mix: mix.clock_spread_ms > 50,
)
def _no_clock_floor(original: Any) -> Any:
    def begin(self: Any, committer: Any, transaction: Any, now: int) -> None:
        original(self, committer, transaction, committer._runtime.now_ms())

    return begin


@bug(
    "own-clock-floor",
    "A commit's time does not go back in one process; what others committed is not asked.",
    "kept.engine.committer:_Batch.__init__",
    fits=lambda mix: (mix.servers > 1 or mix.embedded) and mix.clock_spread_ms > 50,
)
def _own_clock_floor(original: Any) -> Any:
    def begin(self: Any, committer: Any, transaction: Any, now: int) -> None:
        own = committer._zoo_latest = max(
            committer._runtime.now_ms(), getattr(committer, "_zoo_latest", 0)
        )
        original(self, committer, transaction, own)

    return begin


@bug(
    "exact-timer-off",
    "Commits do not tell the timer what will be due: only the repairing scan finds it.",
    "kept.engine.background:Background.expect",
    fits=lambda mix: mix.prompt,
)
def _exact_timer_off(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "timer-lost-on-restart",
    "An engine that starts does not look what is due already, nor does it look now and then.",
    "kept.engine.background:Background._seconds_to_wait",
    faults=("server_crash", "server_stop", "crash_before_commit", "crash_after_commit"),
)
def _timer_lost_on_restart(_original: Any) -> Any:
    def seconds(self: Any) -> float | None:
        if self._due_at is None or self._due_at == 0:
            return None
        left: int = self._due_at - self._committer.now_ms()
        return max(left, 0) / 1_000

    return seconds


@bug(
    "no-look-after-failure",
    "When looking for due work failed, nobody looks again until something new is due.",
    "kept.engine.background:Background._seconds_to_wait",
    faults=("scan_fails", "commit_fails", "store_outage"),
    unfound="Any later commit says what is due next, and a busy world always has one.",
)
def _no_look_after_failure(_original: Any) -> Any:
    def seconds(self: Any) -> float | None:
        if self._due_at is None:
            return None
        left: int = self._due_at - self._committer.now_ms()
        return max(left, 0) / 1_000

    return seconds


# -- waiting


@bug(
    "waiter-after-the-look",
    "A promise.wait is registered after its look: a settlement in between does not wake it.",
    "kept.engine.waiting:Waiting.promise",
    fits=lambda mix: mix.prompt,
)
def _waiter_after_the_look(original: Any) -> Any:
    async def promise(self: Any, request: Any, tenant: str, look: Any) -> Response:
        first: Response = await look()
        waiting = True

        async def once() -> Response:
            nonlocal waiting
            if waiting:
                waiting = False
                return first
            answer: Response = await look()
            return answer

        answer: Response = await original(self, request, tenant, once)
        return answer

    return promise


@bug(
    "claim-after-the-look",
    "A claim is registered after its look: a task that became due in between does not wake it.",
    "kept.engine.waiting:Waiting.claim",
    fits=lambda mix: mix.prompt,
)
def _claim_after_the_look(original: Any) -> Any:
    return _waiter_after_the_look(original)


@bug(
    "next-claim-not-woken",
    "A claim that found tasks does not wake the next in line.",
    "kept.engine.waiters:Waiters.remove_claim",
    fits=lambda mix: mix.prompt,
    unfound="A claim of a simulated worker takes up to a hundred tasks, so the next need not be woken.",
)
def _next_claim_not_woken(original: Any) -> Any:
    def remove(self: Any, waiter: Any) -> None:
        waiter.woken = waiter.honoured = False
        original(self, waiter)

    return remove


@bug(
    "settlements-not-noticed",
    "A commit's news do not say which promises settled: waiting calls sleep on.",
    "kept.engine.notices:_promise_notice",
    fits=lambda mix: mix.prompt,
)
def _settlements_not_noticed(original: Any) -> Any:
    def notice_of(tenant: str, promise: Any, notice: Notice) -> None:
        if promise.pending:
            original(tenant, promise, notice)

    return notice_of


@bug(
    "missed-news-not-repaired",
    "A process that missed another's news does not look at everything again.",
    "kept.engine.engine:Engine._noticed",
    faults=("notice_lost",),
    unfound="Whoever waits asks again after a minute; only worlds without faults are held to be prompt.",
)
def _missed_news_not_repaired(original: Any) -> Any:
    def noticed(self: Any, notice: Notice) -> None:
        if not notice.everything:
            original(self, notice)

    return noticed


# -- the outbox


@bug(
    "deleted-before-delivery",
    "A message is deleted from the outbox before it is handed to its transport.",
    "kept.engine.outbox:Outbox._deliver",
    faults=("stream_break", "receiver_crash", "server_crash"),
)
def _deleted_before_delivery(original: Any) -> Any:
    async def deliver(self: Any, tenant: str, entry: Any, promise: Any) -> None:
        step = DeliveredMessage(entry.key, entry.version)
        await self._committer.apply([Item(tenant, step)])
        await original(self, tenant, entry, promise)

    return deliver


@bug(
    "failed-delivery-counts",
    "A delivery that failed counts as one that succeeded.",
    "kept.engine.outbox:FailedMessage",
    faults=("stream_break", "receiver_crash", "server_crash"),
)
def _failed_delivery_counts(_original: Any) -> Any:
    return lambda key, version, *_: DeliveredMessage(key, version)
