"""What clients asked and what they were answered, in order: recorded, saved and loaded.

A history is a file of JSON lines: a header, then operations and faults. An operation tells who
asked (`client`), through which process, its request and answer as they travel (A1: kind, head,
data; status, data), and when. Measures of time are kept apart:

- `invoked` and `returned` number the events of the whole history in the order in which they were
  seen. They alone decide what happened before what.
- `invokedAt` and `returnedAt` are milliseconds on the clock of whoever recorded. They place an
  operation on an axis and, as far as `clockSkewMs` in the header allows, bound the instant at
  which the server acted.

- `clockFrom` and `clockUntil` are what a recorder that knows the server's clock saw on it: the
  server did not act at an earlier instant than the one, nor at a later than the other. Where they
  are missing, `invokedAt`, `returnedAt` and the skew stand for them.

An operation without an answer has an unknown outcome: it may have taken effect at any time after
its invocation, or never. If it has a `returned` all the same, it was known to be over by then, with
or without an effect. `unheard` says of an answer that it was given, and that it reached nobody.

A file written by hand may leave the numbers out; they then follow from the instants, and events of
one instant count as concurrent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from kept.client.connection import Connection
from kept.errors import ConnectionFailedError
from kept.protocol.requests import Request
from kept.protocol.responses import Response

JsonObject: TypeAlias = dict[str, Any]

FORMAT: Final = 1
# What a history may hold; a recorder that is full says so instead of forgetting.
MAX_OPERATIONS: Final = 1_000_000
MAX_LINE_BYTES: Final = 16 * 1_048_576


class HistoryError(ValueError):
    """A file that is no history, or a recorder that is full; the text says where and why."""


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """What came back: a status, and data as JSON."""

    status: int
    data: Any = None


class Operation(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One request of one client. `answer` is None where none came, and so is mostly `returned`."""

    client: str
    process: str = ""
    request: JsonObject
    answer: Answer | None = None
    invoked: int = -1
    returned: int | None = None
    invoked_at: float = 0.0
    returned_at: float | None = None
    clock_from: int | None = None
    clock_until: int | None = None
    unheard: bool = False

    @property
    def kind(self) -> str:
        """The request's kind."""
        return str(self.request.get("kind", ""))

    @property
    def data(self) -> JsonObject:
        """The request's data."""
        data = self.request.get("data")
        return data if isinstance(data, dict) else {}


class Fault(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Something that was done to a process, or to the network: a mark on the timeline."""

    kind: str
    at: float
    until: float | None = None
    process: str = ""
    detail: str = ""


class Header(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """About a history. `model` names what it is judged by; `clock_skew_ms` is how far a server's
    clock may be from the recorder's, None where nothing is known; `origin_ms` is the instant that
    the axis starts from."""

    format: int = FORMAT
    title: str = ""
    model: str = "protocol"
    clock_skew_ms: float | None = None
    origin_ms: float | None = None
    about: JsonObject = {}


class History(msgspec.Struct):
    """A header, operations in the order of their invocations, and faults."""

    header: Header
    operations: list[Operation]
    faults: list[Fault] = []

    def save(self, path: Path) -> None:
        """Writes JSON lines. Raises OSError."""
        with path.open("wb") as file:
            file.writelines(self.lines())

    def lines(self) -> Iterator[bytes]:
        """The lines of the file."""
        yield msgspec.json.encode({"history": self.header}) + b"\n"
        for operation in self.operations:
            yield msgspec.json.encode({"operation": operation}) + b"\n"
        for fault in self.faults:
            yield msgspec.json.encode({"fault": fault}) + b"\n"


class _Line(msgspec.Struct):
    history: Header | None = None
    operation: Operation | None = None
    fault: Fault | None = None


_line_decoder: Final = msgspec.json.Decoder(_Line)


def load(path: Path) -> History:
    """The history of a file. Raises `HistoryError` with the line that is wrong, and OSError."""
    with path.open("rb") as file:
        return parse(file)


def parse(lines: Iterable[bytes]) -> History:
    """The history of JSON lines; blank ones are skipped. Raises `HistoryError`."""
    history = History(Header(), [])
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            if len(text) > MAX_LINE_BYTES:
                raise HistoryError(f"longer than {MAX_LINE_BYTES} bytes")
            line = _line_decoder.decode(text)
            _take(history, line)
        except (msgspec.DecodeError, UnicodeDecodeError, HistoryError) as error:
            raise HistoryError(f"line {number}: {error}") from None
    if len(history.operations) > MAX_OPERATIONS:
        raise HistoryError(f"more than {MAX_OPERATIONS} operations")
    history.operations = _numbered(history.operations)
    return history


def _take(history: History, line: _Line) -> None:
    if line.history is not None:
        if line.history.format != FORMAT:
            raise HistoryError(f"format {line.history.format} is not {FORMAT}")
        history.header = line.history
    elif line.operation is not None:
        operation = line.operation
        if operation.answer is not None and operation.returned_at is None:
            raise HistoryError("operation: an answer without `returnedAt`")
        history.operations.append(operation)
    elif line.fault is not None:
        history.faults.append(line.fault)
    else:
        raise HistoryError("neither `history`, nor `operation`, nor `fault`")


def _numbered(operations: list[Operation]) -> list[Operation]:
    """The operations in order of invocation, each event with its number, checked."""
    if any(operation.invoked < 0 for operation in operations):
        operations = _numbered_by_instants(operations)
    operations = sorted(operations, key=lambda operation: operation.invoked)
    for operation in operations:
        if operation.answer is None:
            continue
        if operation.returned is None or operation.returned <= operation.invoked:
            raise HistoryError(f"an operation of {operation.client} returns before it is invoked")
    return operations


def _numbered_by_instants(operations: list[Operation]) -> list[Operation]:
    events: list[tuple[float, int, int]] = []
    for index, operation in enumerate(operations):
        events.append((operation.invoked_at, 0, index))
        if operation.answer is not None and operation.returned_at is not None:
            events.append((operation.returned_at, 1, index))
    invoked: dict[int, int] = {}
    returned: dict[int, int] = {}
    for number, (_, is_return, index) in enumerate(sorted(events, key=itemgetter(0, 1))):
        (returned if is_return else invoked)[index] = number
    return [
        msgspec.structs.replace(operation, invoked=invoked[index], returned=returned.get(index))
        for index, operation in enumerate(operations)
    ]


class Moment(NamedTuple):
    """An event's number, the recorder's clock, and between which instants (ms) a server acts that
    acts then."""

    number: int
    at: float
    clock_from: int | None
    clock_until: int | None


class Recorder:
    """Records as it happens. `now_ms` is the recorder's clock, such as `Runtime.now_ms`.

    `server_clock`, where somebody knows it, tells between which instants (ms) a server acts that
    acts now.
    """

    def __init__(
        self,
        now_ms: Callable[[], float],
        header: Header | None = None,
        server_clock: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._now_ms = now_ms
        self._server_clock = server_clock
        self._header = header or Header()
        self._events = 0
        self._operations: list[Operation] = []
        self._faults: list[Fault] = []

    def moment(self) -> Moment:
        """An event that happens now and belongs to no operation yet."""
        return Moment(self._event(), self._now_ms(), *self._bounds())

    def invoke(self, client: str, request: JsonObject, process: str = "") -> int:
        """Notes that a request is on its way; the number by which its answer is noted later.

        Raises `HistoryError` beyond `MAX_OPERATIONS`.
        """
        if len(self._operations) >= MAX_OPERATIONS:
            raise HistoryError(f"more than {MAX_OPERATIONS} operations")
        operation = Operation(
            client=client,
            process=process,
            request=request,
            invoked=self._event(),
            invoked_at=self._now_ms(),
            clock_from=self._bounds()[0],
        )
        self._operations.append(operation)
        return len(self._operations) - 1

    def answered(self, operation: int, status: int, data: Any) -> None:
        """Notes the answer. Without one, the outcome stays unknown."""
        self._operations[operation] = msgspec.structs.replace(
            self._operations[operation],
            answer=Answer(status, data),
            returned=self._event(),
            returned_at=self._now_ms(),
            clock_until=self._bounds()[1],
        )

    def given_up(self, operation: int) -> None:
        """Notes when the client stopped waiting; the outcome stays unknown."""
        self._operations[operation] = msgspec.structs.replace(
            self._operations[operation], returned_at=self._now_ms()
        )

    def asked_as(self, operation: int, head: JsonObject) -> None:
        """Notes the head under which a request travels."""
        known = self._operations[operation]
        self._operations[operation] = msgspec.structs.replace(
            known, request={**known.request, "head": head}
        )

    @property
    def latest(self) -> int:
        """The number of the operation that was invoked last."""
        return len(self._operations) - 1

    def kind_of(self, operation: int) -> str:
        """What an operation asks."""
        return self._operations[operation].kind

    @property
    def operations(self) -> list[Operation]:
        """Everything so far, by the numbers that `invoke` gave."""
        return list(self._operations)

    def fault(
        self, kind: str, *, process: str = "", detail: str = "", until: float | None = None
    ) -> None:
        """Notes something that strikes now, and lasts `until` an instant (ms)."""
        at = self._now_ms()
        self._faults.append(Fault(kind=kind, at=at, until=until, process=process, detail=detail))

    def history(self) -> History:
        """Everything so far."""
        return History(self._header, list(self._operations), list(self._faults))

    def _bounds(self) -> tuple[int, int] | tuple[None, None]:
        return self._server_clock() if self._server_clock is not None else (None, None)

    def _event(self) -> int:
        self._events += 1
        return self._events


class RecordingConnection:
    """A connection that records what passes through it, as one client."""

    def __init__(
        self, connection: Connection, recorder: Recorder, client: str, process: str = ""
    ) -> None:
        self._connection = connection
        self._recorder = recorder
        self._client = client
        self._process = process

    async def send(self, request: Request, *, request_id: str | None = None) -> Response:
        """The engine's answer (see `Connection.send`). What ends otherwise has no known outcome."""
        head = {} if request_id is None else {"kept:request": request_id}
        asked = {"kind": request.kind, "head": head, "data": msgspec.to_builtins(request)}
        number = self._recorder.invoke(self._client, asked, self._process)
        try:
            response = await self._connection.send(request, request_id=request_id)
        except ConnectionFailedError:
            self._recorder.given_up(number)
            raise
        self._recorder.answered(number, response.status, msgspec.to_builtins(response.data))
        return response

    async def close(self) -> None:
        """Ends the connection beneath."""
        await self._connection.close()
