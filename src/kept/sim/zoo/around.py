"""Bugs of the floors around the engine: stores, transports, client and server."""

from __future__ import annotations

from typing import Any, Final

from kept.protocol import requests as r
from kept.protocol.storage import Notice
from kept.sim.zoo.bug import Menagerie

AROUND: Final = Menagerie()
bug = AROUND.bug

ANSWERS_LOST: Final = ("lost", "broken_after", "broken_before", "server_crash", "partition")
COMMITS_PER_LOSS: Final = 20


# -- stores


@bug(
    "commit-forgotten",
    "Of twenty commits the store forgets one, and says that it is done.",
    "kept.stores.memory.store:MemoryTransaction.commit",
)
def _commit_forgotten(original: Any) -> Any:
    count = 0

    async def commit(self: Any, batch_id: str, now: int, notice: Notice) -> None:
        nonlocal count
        count += 1
        if count % COMMITS_PER_LOSS == 0:
            self._changes = []
        await original(self, batch_id, now, notice)

    return commit


@bug(
    "uncommitted-shown",
    "What a transaction saves is seen by others at once, and is undone when it does not commit.",
    "kept.stores.memory.store:MemoryTransaction.save",
)
def _uncommitted_shown(original: Any) -> Any:
    from kept.stores.memory.changes import apply, undo

    async def save(self: Any, tenant: str, changes: Any) -> None:
        await original(self, tenant, changes)
        journal: list[Any] = []
        apply(self._store.tables, tenant, self._changes[-1][1], journal)
        commit, end = self.commit, self.end

        async def committing(batch_id: str, now: int, notice: Notice) -> None:
            undo(journal)
            await commit(batch_id, now, notice)

        def ending() -> None:
            undo(journal)
            end()

        self.commit, self.end = committing, ending

    return save


@bug(
    "failed-commit-stays",
    "What a transaction saved stays although its commit failed.",
    "kept.stores.memory.store:MemoryTransaction.save",
    faults=("commit_fails", "store_outage", "crash_before_commit", "server_crash"),
)
def _failed_commit_stays(original: Any) -> Any:
    from kept.stores.memory.changes import apply

    async def save(self: Any, tenant: str, changes: Any) -> None:
        await original(self, tenant, changes)
        self._changes.pop()
        apply(self._store.tables, tenant, changes, [])

    return save


@bug(
    "release-number-overwritten",
    "A release that is stored already gets another number when it is sent again.",
    "kept.stores.memory.changes:apply",
    faults=("lost", "broken_after", "duplicated"),
)
def _release_number_overwritten(original: Any) -> Any:
    def apply(tables: Any, tenant: str, changes: Any, journal: Any) -> None:
        if tenant in tables:
            stored = tables[tenant]
            for edge in changes.releases:
                if edge.to in stored.releases[edge.of]:
                    before = stored.put_release(edge.of, edge.to, None)
                    journal.append(
                        lambda edge=edge, before=before: stored.put_release(
                            edge.of, edge.to, before
                        )
                    )
        original(tables, tenant, changes, journal)

    return apply


# -- transports


@bug(
    "written-is-delivered",
    "A message counts as delivered once it is written, whether or not the stream is alive.",
    "kept.transports.poll:PollConnection.tick",
    faults=("stream_stall", "stream_break", "receiver_crash"),
)
def _written_is_delivered(original: Any) -> Any:
    def tick(self: Any, now: float, keep_alive_seconds: float, tick_seconds: float) -> None:
        for message in self._unconfirmed:
            message.written_at = float("-inf")
        original(self, now, keep_alive_seconds, tick_seconds)

    return tick


@bug(
    "lost-stream-delivers",
    "Messages on a stream that ended count as delivered.",
    "kept.transports.poll:PollConnection.close",
    faults=("stream_stall", "stream_break", "receiver_crash", "server_crash"),
)
def _lost_stream_delivers(original: Any) -> Any:
    def close(self: Any) -> None:
        for message in (*self._unconfirmed, *self._waiting):
            message.finish(delivered=True)
        original(self)

    return close


# -- client


@bug(
    "repeats-without-an-id",
    "A client repeats what acts under a lease without a request id: it acts twice.",
    "kept.client.http:HttpConnection._encode",
    faults=ANSWERS_LOST,
)
def _repeats_without_an_id(_original: Any) -> Any:
    from kept.client.http import _Item
    from kept.protocol.codec import encode_request
    from kept.protocol.kinds import wait_of

    def encode(self: Any, request: r.Request, _request_id: str | None) -> Any:
        head = r.RequestHead(corr_id=str(next(self._numbers)))
        return _Item(request.kind, head.corr_id, encode_request(request, head), wait_of(request))

    return encode


@bug(
    "repeats-what-is-not-repeatable",
    "A client repeats every request whose answer was lost, also those that then act twice.",
    "kept.client.http:REPEATABLE",
    faults=ANSWERS_LOST,
)
def _repeats_what_is_not_repeatable(original: Any) -> Any:
    kinds = (r.TaskCreate, r.TaskContinue, r.ScheduleDelete, r.DeadReplay)
    return original | frozenset(request.kind for request in kinds)


# -- server


@bug(
    "departed-client-served",
    "A claim whose client is gone waits on, and takes work for nobody.",
    "kept.server.reception:Reception._submit_unless_gone",
    unfound="The leases expire, and the work goes on: nothing is lost but time.",
)
def _departed_client_served(_original: Any) -> Any:
    async def submit(self: Any, admitted: Any, _departure: Any) -> Any:
        return await self._submit(admitted)

    return submit


@bug(
    "batch-answers-crossed",
    "The answers to a batch are given to its requests in another order.",
    "kept.server.reception:_encoded_run",
)
def _batch_answers_crossed(original: Any) -> Any:
    return lambda run, responses, room: original(run, list(responses)[::-1], room)
