"""The history of a run: what was asked and answered, how often it arrived, and by which clock.

A client sees one question and one answer. Between the two it may have asked again, and the network
may have doubled a message: each arrival beyond the first is an operation of its own that nobody was
answered. And where nobody was answered it is known here, as nowhere else, when it was over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from kept.check.history import Header, History, Moment, Recorder, RecordingConnection
from kept.client.connection import Connection
from kept.client.http import HttpConnection, _Item
from kept.protocol.requests import Request
from kept.sim.loop import SimulatedLoop
from kept.sim.process import Process
from kept.sim.runtime import EPOCH_MS, Clock
from kept.stores.memory.store import MemoryStore

TITLE: Final = "simulation"


class ServerClock:
    """Between which instants a server acts that acts now: no earlier than the latest commit, no
    later than any clock has ever shown (A3: `now` never goes back)."""

    def __init__(self, store: MemoryStore, clocks: Iterable[Clock]) -> None:
        self._store = store
        self._clocks = list(clocks)
        self._latest = 0

    def bounds(self) -> tuple[int, int]:
        """The instants (ms). Also to be asked right before a clock is set back."""
        shown = max(clock.now_ms() for clock in self._clocks)
        self._latest = max(self._latest, shown, self._store.clock)
        return self._store.clock, self._latest


class _Sent:
    """A request that travels: its operations, when it arrived, and when that was over."""

    def __init__(self, operation: int, request: Any, moment: Moment) -> None:
        self.operations = [operation]
        self.request = request
        self.arrivals: list[Moment] = []
        self.under_way = 0
        self.over = moment


class Recording:
    """The recorder of a run, and what it has to be told by network and world."""

    def __init__(self, loop: SimulatedLoop, seed: int, clock: ServerClock) -> None:
        header = Header(title=f"{TITLE} of seed {seed}", clock_skew_ms=None, origin_ms=EPOCH_MS)
        self.recorder = Recorder(
            lambda: round(EPOCH_MS + loop.time() * 1_000, 3), header, clock.bounds
        )
        self._sent: dict[tuple[Process, str], _Sent] = {}
        # What has arrived at a server and is not over, by the flight that brought it.
        self._at_server: dict[Process, dict[object, list[_Sent]]] = {}
        # When those ended who had an engine of their own.
        self._ends: dict[str, Moment] = {}

    def connection(self, inner: Connection, process: Process) -> Connection:
        """A connection of a process, recorded."""
        return RecordingConnection(inner, self.recorder, repr(process), process.name)

    def history(self) -> History:
        """Everything so far."""
        for sent in self._sent.values():
            if not sent.under_way:
                for operation in sent.operations:
                    self.recorder.over(operation, sent.over)
        for operation, client in self.recorder.unanswered():
            if client in self._ends:
                self.recorder.over(operation, self._ends[client])
        return self.recorder.history()

    def fault(self, kind: str, process: str, text: str = "", seconds: float | None = None) -> None:
        """Something strikes a process, or the disk, for so long."""
        now = self.recorder.moment().at
        until = None if seconds is None else round(now + seconds * 1_000, 3)
        self.recorder.fault(kind, process=process, detail=text, until=until)

    # -- what is told

    def encoded(self, process: Process, number: str, body: bytes) -> None:
        """The latest operation travels as `body`, under a number of its connection."""
        request = msgspec.json.decode(body)
        operation = self.recorder.latest
        if self.recorder.kind_of(operation) != request["kind"]:
            return  # A look on behalf of somebody who waits: it changes nothing.
        self.recorder.asked_as(operation, request["head"])
        self._sent[process, number] = _Sent(operation, request, self.recorder.moment())

    def arrived(self, flight: object, client: Process, server: Process, body: bytes) -> None:
        """A body is at a server, maybe again."""
        decoded = msgspec.json.decode(body)
        brought = []
        for request in decoded if isinstance(decoded, list) else [decoded]:
            sent = self._sent.get((client, request["head"]["corrId"]))
            if sent is None:
                continue
            if sent.arrivals:
                # Which arrival is answered is unknown, so the others began no later than these.
                again = self.recorder.invoke(
                    repr(client), sent.request, client.name, since=sent.arrivals[-1]
                )
                sent.operations.append(again)
            sent.arrivals.append(self.recorder.moment())
            sent.under_way += 1
            brought.append(sent)
        self._at_server.setdefault(server, {})[flight] = brought

    def over(self, flight: object, server: Process) -> None:
        """A server has answered everything that a flight brought."""
        moment = self.recorder.moment()
        for sent in self._at_server.get(server, {}).pop(flight, ()):
            sent.under_way -= 1
            sent.over = moment

    def died(self, process: Process) -> None:
        """A process is dead, and does nothing more."""
        for flight in list(self._at_server.get(process, ())):
            self.over(flight, process)
        self._at_server.pop(process, None)

    def died_with_its_engine(self, process: Process) -> None:
        """A process is dead that asked an engine of its own: whatever it asked is over."""
        self._ends[repr(process)] = self.recorder.moment()


class WireConnection(HttpConnection):
    """A connection that tells how each operation travels. It is asked through a
    `RecordingConnection`, so what it encodes is the operation that was noted last."""

    recording: Recording
    process: Process

    def _encode(self, request: Request, request_id: str | None) -> _Item:
        item = super()._encode(request, request_id)
        self.recording.encoded(self.process, item.corr_id, item.body)
        return item
