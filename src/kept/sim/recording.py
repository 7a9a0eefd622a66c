"""The history of a run: what was asked and answered, at which server, and by which clock.

A client sees one question and one answer. Between the two it may have asked again, and the network
may have doubled a message. So what is recorded is what arrived at a server: each arrival is an
operation from there to the server's reply, whether or not that reached anybody. The one whose answer
the client was given carries that answer, as the client got it. Only what a server took with it when
it died has an unknown outcome, and it is known here, as nowhere else, when it was over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from kept.check.history import (
    Answer,
    Header,
    History,
    Moment,
    Operation,
    Recorder,
    RecordingConnection,
)
from kept.client.connection import Connection
from kept.client.http import HttpConnection, _Item
from kept.protocol.requests import Request
from kept.sim.loop import SimulatedLoop
from kept.sim.process import Process
from kept.sim.runtime import EPOCH_MS, Clock

TITLE: Final = "simulation"
# What a client left behind is in the batch under way or in none, and a claim is handed back in the
# one after it.
COMMITS_AFTER_LEAVING: Final = 2


class ServerClock:
    """Between which instants a server acts that acts now: no earlier than the latest commit, no
    later than any clock has ever shown (A3: `now` never goes back)."""

    def __init__(self, latest_commit: Callable[[], int], clocks: Iterable[Clock]) -> None:
        self._latest_commit = latest_commit
        self._clocks = list(clocks)
        self._latest = 0

    def bounds(self) -> tuple[int, int]:
        """The instants (ms). Also to be asked right before a clock is set back."""
        shown = max(clock.now_ms() for clock in self._clocks)
        committed = self._latest_commit()
        self._latest = max(self._latest, shown, committed)
        return committed, self._latest


class _Arrival:
    """A request at a server: since when, until when, and what was replied."""

    def __init__(self, server: str, since: Moment) -> None:
        self.server = server
        self.since = since
        self.until: Moment | None = None
        self.reply: Answer | None = None

    def told(
        self, operation: Operation, answer: Answer | None, *, unheard: bool = False
    ) -> Operation:
        """The operation as the server saw it."""
        return msgspec.structs.replace(
            operation,
            process=self.server,
            answer=answer,
            unheard=unheard and answer is not None,
            invoked=self.since.number,
            clock_from=self.since.clock_from,
            returned=self.until.number if self.until is not None else None,
            returned_at=self._returned_at(operation, answer),
            clock_until=self.until.clock_until if self.until is not None else None,
        )

    def _returned_at(self, operation: Operation, answer: Answer | None) -> float | None:
        """When the client heard, or else when the server was done."""
        if answer is None or operation.returned_at is not None or self.until is None:
            return operation.returned_at
        return self.until.at


class _Sent:
    """A request that travels, and its arrivals; the client heard the reply to one of them."""

    def __init__(self, operation: int, moment: Moment) -> None:
        self.operation = operation
        self.sent = moment
        self.arrivals: list[_Arrival] = []
        self.heard: _Arrival | None = None


# By the numbers under which requests travel.
_Brought: TypeAlias = dict[str, tuple[_Sent, _Arrival]]


class Recording:
    """The recorder of a run, and what it has to be told by network, disk and world."""

    def __init__(self, loop: SimulatedLoop, seed: int, clock: ServerClock) -> None:
        header = Header(title=f"{TITLE} of seed {seed}", origin_ms=EPOCH_MS)
        self._loop = loop
        self.recorder = Recorder(self._now_ms, header, clock.bounds)
        self._sent: dict[tuple[Process, str], _Sent] = {}
        # What is under way at a server, by the flight that brought it.
        self._under_way: dict[Process, dict[object, _Brought]] = {}
        # What was replied to a flight, until its client hears of it.
        self._replied: dict[object, _Brought] = {}
        # What clients left behind there, and in how many commits it is over.
        self._left: dict[Process, dict[object, int]] = {}
        # When those ended who had an engine of their own.
        self._ends: dict[str, Moment] = {}

    def _now_ms(self) -> float:
        return round(EPOCH_MS + self._loop.time() * 1_000, 3)

    def connection(self, inner: Connection, process: Process) -> Connection:
        """A connection of a process, recorded."""
        return RecordingConnection(inner, self.recorder, repr(process), process.name)

    def history(self) -> History:
        """Everything so far."""
        history = self.recorder.history()
        asked = history.operations
        travelled = {sent.operation: sent for sent in self._sent.values()}
        operations: list[Operation] = []
        for number, operation in enumerate(asked):
            if number in travelled:
                operations += _told(operation, travelled[number])
            elif operation.answer is None and operation.client in self._ends:
                end = self._ends[operation.client]
                ended = {"returned": end.number, "clock_until": end.clock_until}
                operations.append(msgspec.structs.replace(operation, **ended))
            else:
                operations.append(operation)
        history.operations = operations
        operations.sort(key=lambda operation: operation.invoked)
        return history

    def fault(self, kind: str, process: str, text: str = "", seconds: float | None = None) -> None:
        """Something strikes a process, or the disk, for so long."""
        until = None if seconds is None else round(self._now_ms() + seconds * 1_000, 3)
        self.recorder.fault(kind, process=process, detail=text, until=until)

    # -- what is told

    def encoded(self, process: Process, number: str, body: bytes) -> None:
        """The latest operation travels as `body`, under a number of its connection."""
        request = msgspec.json.decode(body)
        operation = self.recorder.latest
        if self.recorder.kind_of(operation) != request["kind"]:
            return  # A look on behalf of somebody who waits: it changes nothing.
        self.recorder.asked_as(operation, request["head"])
        self._sent[process, number] = _Sent(operation, self.recorder.moment())

    def arrived(self, flight: object, client: Process, server: Process, body: bytes) -> None:
        """A body is at a server, maybe again."""
        brought: _Brought = {}
        for request in _each(msgspec.json.decode(body)):
            number = request["head"]["corrId"]
            sent = self._sent.get((client, number))
            if sent is not None:
                arrival = _Arrival(server.name, self.recorder.moment())
                sent.arrivals.append(arrival)
                brought[number] = (sent, arrival)
        self._under_way.setdefault(server, {})[flight] = brought

    def replied(self, flight: object, server: Process, body: bytes) -> None:
        """A server has answered a flight; whether that arrives is another question."""
        brought = self._under_way.get(server, {}).pop(flight, {})
        decoded = msgspec.json.decode(body)
        replies = {reply["head"]["corrId"]: reply for reply in _each(decoded)}
        moment = self.recorder.moment()
        for number, (_, arrival) in brought.items():
            # A batch that is refused as a whole gets one answer.
            reply = replies[number] if isinstance(decoded, list) else decoded
            arrival.until = moment
            arrival.reply = Answer(reply["head"]["status"], reply["data"])
        self._replied[flight] = brought

    def heard(self, flight: object) -> None:
        """The reply to a flight is at the client."""
        for sent, arrival in self._replied.pop(flight, {}).values():
            sent.heard = arrival

    def left(self, flight: object, server: Process) -> None:
        """A client is gone, and a server gives its flight no answer: the commit under way may still
        be for it."""
        self._left.setdefault(server, {})[flight] = COMMITS_AFTER_LEAVING

    def committed(self, server: Process) -> None:
        """A commit of a process has happened."""
        left = self._left.get(server)
        for flight in list(left or ()):
            assert left is not None
            left[flight] -= 1
            if not left[flight]:
                del left[flight]
                self._over(flight, server)

    def died(self, server: Process) -> None:
        """A server is dead, and does nothing more."""
        for flight in list(self._under_way.get(server, ())):
            self._over(flight, server)
        self._left.pop(server, None)

    def died_with_its_engine(self, process: Process) -> None:
        """A process is dead that asked an engine of its own: whatever it asked is over."""
        self._ends[repr(process)] = self.recorder.moment()

    def _over(self, flight: object, server: Process) -> None:
        moment = self.recorder.moment()
        for _, arrival in self._under_way.get(server, {}).pop(flight, {}).values():
            arrival.until = moment


class WireConnection(HttpConnection):
    """A connection that tells how each operation travels. It is asked through a
    `RecordingConnection`, so what it encodes is the operation that was noted last."""

    recording: Recording
    process: Process

    def _encode(self, request: Request, request_id: str | None) -> _Item:
        item = super()._encode(request, request_id)
        self.recording.encoded(self.process, item.corr_id, item.body)
        return item


def _each(decoded: Any) -> list[Any]:
    return decoded if isinstance(decoded, list) else [decoded]


def _told(asked: Operation, sent: _Sent) -> list[Operation]:
    """The operations that one question came to."""
    if asked.answer is not None:
        if sent.heard is None:
            return [asked]
        first = [sent.heard.told(asked, asked.answer)]
    elif sent.arrivals:
        first = []
    else:
        # What never arrived has had no effect.
        first = [msgspec.structs.replace(asked, returned=sent.sent.number)]
    heard = sent.heard if asked.answer is not None else None
    unheard = [each for each in sent.arrivals if each is not heard]
    return first + [each.told(asked, each.reply, unheard=True) for each in unheard]
