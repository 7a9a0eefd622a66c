"""The network between clients and servers: it delays, loses, doubles, reorders and breaks.

A client posts bytes through `SimulatedExchange`, and the real server application answers them in the
server's process (ASGI). Each fate is drawn when a request is posted, so it depends on nothing later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple, TypeAlias

from kept.client.exchange import Answer, AnswerLostError, NotSentError
from kept.sim.conversations import Conversation, Message, StreamConversation, scope_of
from kept.sim.loop import SimulatedLoop
from kept.sim.mix import Mix
from kept.sim.process import Process
from kept.sim.recording import Recording
from kept.sim.streams import Stream
from kept.sim.strikes import Strikes
from kept.sim.trace import FAULT, Trace
from kept.transports.base import DeliveryFailedError
from kept.transports.http import DELIVERY_TIMEOUT_SECONDS

Application: TypeAlias = Callable[..., Any]

SENT: Final = "sent"
# How many times longer than others an overtaken message takes.
OVERTAKEN_FACTOR: Final = 10.0
# After this long a client learns that its connection was reset.
RESET_SECONDS: Final = 0.05


class Flight:
    """One request on its way, and what comes back. `number` names it in the trace."""

    def __init__(self, number: int, client: Process, future: asyncio.Future[Answer]) -> None:
        self.number = number
        self.client = client
        self.future = future
        self.server: Process | None = None
        # In the server: set when the client is gone.
        self.gone: asyncio.Future[None] | None = None

    def fail(self, error: Exception) -> None:
        """The client learns that no answer comes."""
        if not self.future.done():
            self.future.set_exception(error)
            # Looked at, even if the client is dead and will not.
            self.future.exception()

    def hang_up(self) -> None:
        """The server learns that the client is gone."""
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)


class Listener:
    """A server that can be reached."""

    def __init__(self, process: Process, application: Application) -> None:
        self.process = process
        self.application = application
        self.flights: dict[int, Flight] = {}
        self.streams: dict[int, Stream] = {}


class Hook(NamedTuple):
    """Where messages are pushed to: a process, and what answers a body there with a status."""

    process: Process
    answer: Callable[[bytes], int]


class Network:
    """All links. `calm` stops its faults; what is on its way then still ends as it was drawn."""

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        mix: Mix,
        trace: Trace,
        recording: Recording,
        strikes: Strikes,
    ) -> None:
        self.loop = loop
        self._recording = recording
        self._random = random
        self._mix = mix
        self._trace = trace
        self._strikes = strikes
        self._listeners: dict[str, Listener] = {}
        self._hooks: dict[str, Hook] = {}
        self._cut: dict[tuple[str, str], None] = {}
        self._numbers = 0
        self.faulty = True

    def listen(self, process: Process, application: Application) -> None:
        """A server is there from now on, until it dies."""
        listener = Listener(process, application)
        self._listeners[process.name] = listener
        process.on_death.append(lambda: self._died(listener))

    def unlisten(self, process: Process) -> None:
        """A server lets nobody new in; requests that are there are answered."""
        listener = self._listeners.get(process.name)
        if listener is not None and listener.process is process:
            del self._listeners[process.name]

    def hook(self, process: Process, answer: Callable[[bytes], int]) -> None:
        """Messages that are pushed to a process's machine are answered by `answer`, until it dies."""
        hook = Hook(process, answer)
        self._hooks[process.name] = hook
        process.on_death.append(lambda: self._unhook(hook))

    def _unhook(self, hook: Hook) -> None:
        if self._hooks.get(hook.process.name) is hook:
            del self._hooks[hook.process.name]

    def cut(self, first: str, second: str) -> None:
        """From now on nothing travels from one machine to the other; the way back is another link."""
        self._cut[first, second] = None

    def mend(self, first: str, second: str) -> None:
        """Undoes `cut`."""
        self._cut.pop((first, second), None)

    def mend_all(self) -> None:
        self._cut.clear()

    def exchange(self, process: Process, servers: list[str]) -> SimulatedExchange:
        """How a process reaches any of the servers of these names, as through a load balancer."""
        return SimulatedExchange(self, process, servers)

    # -- the life of a request

    def post(self, client: Process, server: str, path: str, body: bytes) -> Flight:
        """Sends a request."""
        self._numbers += 1
        flight = Flight(self._numbers, client, self.loop.create_future())
        fate = self._fate()
        self._note("post", client.name, f"{flight.number} {server}{path} {fate}", body)
        if fate != SENT:
            self._note(f"{FAULT}{fate}", client.name, f"message {flight.number} to {server}")
        delay = self._delay()
        if fate == "refused":
            self._later(delay, flight.fail, NotSentError("refused by the simulation"))
        elif fate == "broken_before":
            self._later(delay, flight.fail, AnswerLostError("reset by the simulation"))
        elif fate != "lost":
            self._later(delay, self._deliver, flight, server, path, body, fate)
            if fate == "duplicated":
                again = Flight(flight.number, client, self.loop.create_future())
                later = delay + self._delay() * OVERTAKEN_FACTOR
                self._later(later, self._deliver, again, server, path, body, "again")
        return flight

    def _fate(self) -> str:
        if not self.faulty:
            return SENT
        draw = self._random.random()
        for fate in ("refused", "lost", "broken_before", "broken_after", "duplicated"):
            rate = self._mix.faults.get(fate)
            if rate is None:
                continue
            draw -= rate
            if draw < 0 or self._strikes.is_overdue(fate, rate):
                if not self._strikes.allow(fate):
                    return SENT
                return fate
        return SENT

    def listens(self, server: str) -> bool:
        """Whether a server answers requests: it is up, and has begun to listen."""
        return server in self._listeners

    def _deliver(self, flight: Flight, server: str, path: str, body: bytes, fate: str) -> None:
        if (flight.client.name, server) in self._cut:
            self._note("dropped", server, f"{flight.number}")
            return
        listener = self._listeners.get(server)
        if listener is None:
            flight.fail(NotSentError("nobody listens there"))
            return
        self._note("deliver", server, f"{flight.number}")
        flight.server = listener.process
        listener.flights[flight.number] = flight
        self._recording.arrived(flight, flight.client, listener.process, body)
        work = self._serve(listener, flight, path, body, fate)
        listener.process.spawn(self.loop, work, f"request-{flight.number}")

    async def _serve(
        self, listener: Listener, flight: Flight, path: str, body: bytes, fate: str
    ) -> None:
        conversation = Conversation(body, self.loop.create_future())
        flight.gone = conversation.gone
        if flight.future.done():
            flight.hang_up()
        await listener.application(scope_of(path, body), conversation.receive, conversation.send)
        listener.flights.pop(flight.number, None)
        self._reply(flight, conversation.answer(), fate)

    def _reply(self, flight: Flight, answer: Answer | None, fate: str) -> None:
        assert flight.server is not None
        if answer is None:
            self._note("left", flight.server.name, f"{flight.number}")
            self._recording.left(flight, flight.server)
            return
        self._recording.replied(flight, flight.server, answer.body)
        text = f"{flight.number} {answer.status} {len(answer.body)}"
        self._note("reply", flight.server.name, text, answer.body)
        if (flight.server.name, flight.client.name) in self._cut:
            return
        if fate == "broken_after":
            self._later(self._delay(), flight.fail, AnswerLostError("reset by the simulation"))
        elif fate != "again":
            self._later(self._delay(), self._arrive, flight, answer)

    def _arrive(self, flight: Flight, answer: Answer) -> None:
        """The answer is at the client, if that still waits."""
        if not flight.future.done():
            self._recording.heard(flight)
            flight.future.set_result(answer)

    def left(self, flight: Flight) -> None:
        """The client waits no longer: the server hears of it, unless the link is cut."""
        if flight.future.done() and not flight.future.cancelled():
            return
        server = flight.server.name if flight.server else ""
        if (flight.client.name, server) not in self._cut:
            self._later(self._delay(), flight.hang_up)

    # -- streams of events

    def open_stream(self, client: Process, server: str, path: str) -> Stream:
        """Asks a server for a stream."""
        self._numbers += 1
        stream = Stream(self._numbers, client, self.loop.create_future())
        self._note("listen", client.name, f"{stream.number} {server}{path}")
        self._later(self._delay(), self._let_in, stream, server, path)
        return stream

    def _let_in(self, stream: Stream, server: str, path: str) -> None:
        listener = self._listeners.get(server)
        if (stream.client.name, server) in self._cut:
            stream.stalled = True
        elif listener is None:
            stream.end()
        else:
            stream.server = listener.process
            stream.gone = self.loop.create_future()
            if stream.ended or not stream.client.alive:
                stream.hang_up()
            listener.streams[stream.number] = stream
            work = self._serve_stream(listener, stream, path)
            listener.process.spawn(self.loop, work, f"stream-{stream.number}")

    async def _serve_stream(self, listener: Listener, stream: Stream, path: str) -> None:
        conversation = StreamConversation(stream, self._write)
        await listener.application(
            scope_of(path, b"", "GET"), conversation.receive, conversation.send
        )
        listener.streams.pop(stream.number, None)
        self._later(max(stream.arrives_at - self.loop.time(), 0.0), stream.end)

    def _write(self, stream: Stream, message: Message) -> None:
        assert stream.server is not None
        if (stream.server.name, stream.client.name) in self._cut:
            # What comes after a gap is of no use either.
            stream.stalled = True
            return
        # One after the other, whatever their delays.
        at = max(stream.arrives_at, self.loop.time() + self._delay())
        stream.arrives_at = at
        delay = at - self.loop.time()
        if message["type"] == "http.response.start":
            self._later(delay, stream.opened, message["status"])
        elif body := message.get("body", b""):
            self._note("event", stream.client.name, f"{stream.number}", body)
            self._later(delay, stream.arrive, body)

    def close_stream(self, stream: Stream) -> None:
        """The client gives it up: the server hears of it, unless the link is cut."""
        stream.ended = True
        server = stream.server.name if stream.server else ""
        if not stream.stalled and (stream.client.name, server) not in self._cut:
            self._later(self._delay(), stream.hang_up)

    def streams(self) -> list[Stream]:
        """Those that are open."""
        listeners = self._listeners.values()
        return [s for each in listeners for s in each.streams.values() if not s.stalled]

    def end_stalled(self) -> None:
        """Servers learn of streams that have stalled, as they do when the network is well again."""
        for listener in self._listeners.values():
            for stream in listener.streams.values():
                if stream.stalled:
                    stream.hang_up()

    def break_stream(self, stream: Stream) -> None:
        """Both ends learn that it is over; what is on its way is lost."""
        stream.end()
        stream.hang_up()

    # -- messages that a server pushes

    async def push(self, sender: Process, machine: str, body: bytes) -> int:
        """Posts a message to a machine's hook; its status. Raises `DeliveryFailedError`."""
        self._numbers += 1
        number, answered = self._numbers, self.loop.create_future()
        fate = self._fate()
        self._note("push", sender.name, f"{number} {machine} {fate}", body)
        if fate == "refused" or (hook := self._hooks.get(machine)) is None:
            await self.loop.pause(self._delay())
            raise DeliveryFailedError("refused by the simulation")
        if fate not in ("lost", "broken_before"):
            self._later(self._delay(), self._arrive_at_hook, sender, hook, body, answered, fate)
        if fate == "duplicated":
            later, again = self._delay() * OVERTAKEN_FACTOR, self.loop.create_future()
            self._later(later, self._arrive_at_hook, sender, hook, body, again, fate)
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
                return int(await answered)
        except TimeoutError:
            raise DeliveryFailedError("no answer in time") from None

    def _arrive_at_hook(
        self, sender: Process, hook: Hook, body: bytes, answered: asyncio.Future[int], fate: str
    ) -> None:
        name = hook.process.name
        if (sender.name, name) in self._cut or not hook.process.alive:
            return
        status = hook.process.context.copy().run(hook.answer, body)
        if fate != "broken_after" and (name, sender.name) not in self._cut:
            self._later(self._delay(), _settle, answered, status)

    def _died(self, listener: Listener) -> None:
        name = listener.process.name
        self._recording.died(listener.process)
        if self._listeners.get(name) is listener:
            del self._listeners[name]
        for stream in listener.streams.values():
            if (name, stream.client.name) not in self._cut:
                self._later(self._delay() + RESET_SECONDS, stream.end)
        listener.streams.clear()
        for flight in listener.flights.values():
            if (name, flight.client.name) not in self._cut:
                reset = AnswerLostError("the server is gone")
                self._later(self._delay() + RESET_SECONDS, flight.fail, reset)
        listener.flights.clear()

    def _delay(self) -> float:
        delay = self._random.uniform(*self._mix.delay)
        if self.faulty and self._random.random() < self._mix.overtaken:
            delay *= OVERTAKEN_FACTOR
        return delay

    def _later(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        self.loop.call_later(delay, action, *args, context=self.loop.kernel.context)

    def _note(self, what: str, who: str, text: str, body: bytes = b"") -> None:
        self._trace.note(what, who, text, body)


class SimulatedExchange:
    """An `Exchange` of one process. Each post takes one of the servers."""

    def __init__(self, network: Network, process: Process, servers: list[str]) -> None:
        self._network = network
        self._process = process
        self._servers = servers
        self._turn = 0

    async def post(self, path: str, body: bytes, timeout: float) -> Answer:
        self._turn += 1
        server = self._servers[self._turn % len(self._servers)]
        flight = self._network.post(self._process, server, path, body)
        try:
            async with asyncio.timeout(timeout):
                return await flight.future
        except TimeoutError as error:
            raise AnswerLostError(f"no answer within {timeout:g} s") from error
        finally:
            self._network.left(flight)

    async def close(self) -> None:
        """Nothing is kept open."""


def _settle(future: asyncio.Future[int], answer: int) -> None:
    if not future.done():
        future.set_result(answer)
