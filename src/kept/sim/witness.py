"""Holds what was answered against the records, and what workers do against what they were told.

The ledger compares answers with answers. Here an answer is compared with the records at the moment
at which it arrives, and an effect of a worker with what that worker knows of its lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kept.check.state import State
from kept.protocol import requests as r
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import (
    CONFLICT,
    OK,
    AcquiredTask,
    ClaimResult,
    HeartbeatResult,
    PromisePage,
    Response,
)
from kept.protocol.storage import Edge
from kept.sdk.services import HOLDER
from kept.sim.mix import Mix
from kept.sim.process import Process, current_owner

if TYPE_CHECKING:
    from kept.sim.ledger import Ledger

# How long a worker may take to stop what it has no lease for, in seconds.
STOP_SECONDS: Final = 2.0
# Heartbeats come three times in a lease, so silence may be noticed that much later.
SHARE_OF_BEAT: Final = 1 / 3
_REGISTERING: Final = (r.PromiseRegisterCallback, r.PromiseRegisterListener)


class Witness:
    """`state` gives the records as the steps made them, `now` virtual seconds."""

    def __init__(
        self, mix: Mix, ledger: Ledger, state: Callable[[], State], now: Callable[[], float]
    ) -> None:
        self._mix = mix
        self._ledger = ledger
        self._state = state
        self._now = now
        self._replays: Counter[str] = Counter()
        # Of each process: the version of each task that it was given last, when it last heard that
        # it holds it, and when it was told that it does not.
        self._given: dict[tuple[Process, str], int] = {}
        self._confirmed: dict[tuple[Process, str], float] = {}
        self._lost: dict[tuple[Process, str], float] = {}
        # Tries of what may fail, by whose they are, under which version, and their key.
        self._attempts: Counter[tuple[Process, str, int, str]] = Counter()

    def asked(self, request: r.Request) -> float:
        """A request is about to be sent; answers when."""
        if isinstance(request, r.DeadReplay):
            self._replays.update(request.ids)
        return self._now()

    def answered(
        self, who: Process, request: r.Request, response: Response, asked_at: float
    ) -> None:
        """An answer has arrived at the process that asked."""
        data = response.data
        if isinstance(request, r.TaskFulfill) and response.status == CONFLICT:
            self._refused(who, request)
        elif isinstance(request, r.TaskSuspend) and response.status == OK:
            self._suspended(request)
        elif isinstance(request, _REGISTERING) and response.ok:
            self._registered(request)
        elif isinstance(request, r.DeadReplay) and response.ok:
            self._replayed(request)
        elif isinstance(request, r.TaskHeartbeat) and isinstance(data, HeartbeatResult):
            self._beaten(who, request, data, asked_at)
        elif isinstance(data, ClaimResult | AcquiredTask):
            for acquired in data.tasks if isinstance(data, ClaimResult) else [data]:
                key = who, acquired.task.id
                self._given[key] = acquired.task.version
                self._confirmed[key] = self._now()
                self._lost.pop(key, None)
            if isinstance(request, r.TaskAcquire) and isinstance(data, AcquiredTask):
                self._acquired(request, data)
        elif isinstance(data, PromisePage):
            self._found(data)

    def _refused(self, who: Process, request: r.TaskFulfill) -> None:
        """A conflict says that nothing was done. Values of raw clients are unique."""
        value, pid = request.action.data.value, f"{who.name}-{who.incarnation}"
        promise = self._state().promises.get(request.id)
        if promise is None or value.data is None or not value.data.startswith(f"{pid}-"):
            return
        if promise.value.normal() == value.normal():
            why = f"task.fulfill of {request.id} by {pid} was refused, and has settled it"
            self._ledger.break_off("what is refused does not happen", why)

    def _suspended(self, request: r.TaskSuspend) -> None:
        """Whoever is suspended is woken by each of the promises that it named."""
        state = self._state()
        task = state.tasks.get(request.id)
        if task is None or task.state is not TaskState.SUSPENDED:
            return
        if task.version != request.version:
            return
        for action in request.actions:
            edge = Edge(action.data.awaited, request.id)
            if edge not in state.callbacks and state.promises[edge.of].pending:
                why = f"{request.id} has no callback on {edge.of}"
                self._ledger.break_off("who is suspended is woken", why)

    def _registered(self, request: r.PromiseRegisterCallback | r.PromiseRegisterListener) -> None:
        """Who was told that it will hear of a promise has its edge for as long as that is pending."""
        state = self._state()
        awaited = state.promises.get(request.awaited)
        if awaited is None or not awaited.pending:
            return
        if isinstance(request, r.PromiseRegisterListener):
            is_there = Edge(awaited.id, request.address) in state.listeners
        else:
            awaiter = state.promises.get(request.awaiter)
            is_over = awaiter is None or not awaiter.pending
            is_there = is_over or Edge(awaited.id, request.awaiter) in state.callbacks
        if not is_there or not awaited.is_external:
            why = f"{request}: {'it is not stored' if not is_there else 'it cannot be awaited'}"
            self._ledger.break_off("who registers hears of it", why)

    def _replayed(self, request: r.DeadReplay) -> None:
        """A replay that was asked once happened once, on a network that duplicates nothing."""
        if "duplicated" in self._mix.faults:
            return
        for id in request.ids:
            letter = self._state().dead_letters.get(id)
            if letter is not None and letter.replays > self._replays[id]:
                why = f"{id} was replayed {letter.replays} times, asked {self._replays[id]} times"
                self._ledger.break_off("replays happen once", why)

    def _acquired(self, request: r.TaskAcquire, acquired: AcquiredTask) -> None:
        if acquired.task.version != request.version + 1:
            why = f"{request.id} at {acquired.task.version}, asked at {request.version}"
            self._ledger.break_off("a lease follows the version that was named", why)

    def _found(self, page: PromisePage) -> None:
        """A search may be late, and shows deadlines that nobody has stored; but what it shows as
        settled by somebody is."""
        for record in page.promises:
            if record.state is not PromiseState.PENDING and record.settled_at != record.timeout_at:
                self._ledger.shown(record)

    # -- workers

    def _beaten(
        self, who: Process, request: r.TaskHeartbeat, result: HeartbeatResult, asked_at: float
    ) -> None:
        lost = {(each.id, each.version) for each in result.lost or ()}
        for ref in request.tasks:
            key = who, ref.id
            if self._given.get(key) != ref.version:
                continue
            if (ref.id, ref.version) in lost:
                self._lost.setdefault(key, self._now())
            else:
                self._confirmed[key] = max(asked_at, self._confirmed.get(key, 0.0))

    def attempt(self, key: str, most: int) -> None:
        """A worker tries what may fail: no more often under one lease than its policy says."""
        who, id = current_owner(), HOLDER.get()
        if who is None or not id:
            return
        version = self._given.get((who, id), 0)
        self._attempts[who, id, version, key] += 1
        count = self._attempts[who, id, version, key]
        if count > most:
            why = f"{key} by {who} under version {version} of {id}: {count} times, not {most}"
            self._ledger.break_off("tries are limited", why)

    def effect(self, effect: str) -> None:
        """A step has an effect outside. Its worker holds the lease, as far as it can know."""
        who, id = current_owner(), HOLDER.get()
        if who is None or not id:
            return
        key, now = (who, id), self._now()
        lost = self._lost.get(key)
        if lost is not None and now - lost > STOP_SECONDS and who.stalled_until < lost:
            why = f"{effect} by {who}, {now - lost:.1f} s after it was told that {id} is lost"
            self._ledger.break_off("who lost the lease stops", why)
        confirmed = self._confirmed.get(key)
        limit = self._mix.lease_seconds * (1 + SHARE_OF_BEAT) * (1 + self._mix.drift)
        silent = 0.0 if confirmed is None else now - confirmed - limit
        if silent > STOP_SECONDS and who.stalled_until < now - silent:
            why = f"{effect} by {who}, whose lease on {id} nobody confirmed since {confirmed:.1f}"
            self._ledger.break_off("who hears nothing stops", why)
