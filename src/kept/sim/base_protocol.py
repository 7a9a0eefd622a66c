"""The plain base protocol, as an installed foreign client speaks it: one request, one POST.

No batch, no request ids, no repetition: whatever gets lost, the protocol itself must make good.
Payloads are base64 of JSON (A9).
"""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any, Final

import msgspec

from kept.client.exchange import AnswerLostError, Exchange, NotAnEngineError, NotSentError
from kept.client.lanes import single_outcome
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.codec import encode_request
from kept.protocol.records import PromiseRecord, Value
from kept.protocol.responses import Response
from kept.sim.process import Process
from kept.sim.recording import Recording

EXCHANGE_TIMEOUT_SECONDS: Final = 10.0
FUNCTION: Final = "base"
MAX_DEPTH: Final = 2
# How children are told from each other, and from their parents: two dialects are in the field.
DIALECTS: Final = (".", ":")


class BaseConnection:
    """A `Connection` that sends each request by itself, once. It is asked through a recording one."""

    def __init__(self, exchange: Exchange, recording: Recording, process: Process) -> None:
        self._exchange = exchange
        self._recording = recording
        self._process = process
        self._numbers = 0

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        self._numbers += 1
        corr_id = f"base-{self._numbers}"
        body = encode_request(request, r.RequestHead(corr_id=corr_id))
        self._recording.encoded(self._process, corr_id, body)
        try:
            answer = await self._exchange.post("/", body, EXCHANGE_TIMEOUT_SECONDS)
            return single_outcome(request.kind, corr_id, answer).response
        except (NotSentError, AnswerLostError, NotAnEngineError) as error:
            raise ConnectionFailedError(str(error)) from error

    async def close(self) -> None:
        await self._exchange.close()


class Part(msgspec.Struct, frozen=True):
    """One thing that a base program does. `kind`: `local` (a step), `call` (another base program),
    `job` (one of our own workers' jobs), `timer` (with a target, or without), `join`: wait for
    everything so far."""

    kind: str
    plan: Plan | None = None
    milliseconds: int = 0
    targeted: bool = False


class Plan(msgspec.Struct, frozen=True):
    """A base program: its parts in order, the dialect of its ids, the address of its calls."""

    dialect: str
    target: str
    parts: list[Part]

    @property
    def total(self) -> int:
        """What it must come to: one for each part, and what its calls come to."""
        return sum(part.plan.total if part.plan else part.kind != "join" for part in self.parts)


def draw_plan(random: Random, targets: list[str], depth: int = 0) -> Plan:
    """A program whose calls go to one of the addresses."""
    parts: list[Part] = []
    for _ in range(random.randint(1, 5)):
        kind = random.choice(("local", "local", "call", "job", "timer", "join"))
        if kind == "call":
            if depth < MAX_DEPTH:
                parts.append(Part(kind, draw_plan(random, targets, depth + 1)))
        elif kind == "timer":
            milliseconds = random.choice((50, 1_000, 7_000))
            parts.append(Part(kind, None, milliseconds, targeted=random.random() < 0.5))
        else:
            parts.append(Part(kind))
    return Plan(random.choice(DIALECTS), random.choice(targets), parts)


def encode(value: Any) -> Value:
    """A payload in the base protocol's form."""
    return Value(data=base64.b64encode(json.dumps(value).encode()).decode())


def decode(value: Value) -> Any:
    """What is in such a payload."""
    return json.loads(base64.b64decode(value.data or ""))


def call_param(plan: Plan) -> Value:
    """The arguments of a base program."""
    plain = msgspec.to_builtins(plan)
    return encode({"func": FUNCTION, "args": [plain], "kwargs": {}, "version": 1})


def plan_of(promise: PromiseRecord) -> Plan | None:
    """The program that a promise asks for; None where it is none of ours."""
    try:
        stored = decode(promise.param)
        if stored["func"] != FUNCTION:
            return None
        return msgspec.convert(stored["args"][0], Plan)
    except (ValueError, KeyError, TypeError, msgspec.ValidationError):
        return None


def lineage(parent: PromiseRecord, dialect: str) -> dict[str, str]:
    """A child's lineage: a preload finds it by either tag (A4)."""
    origin = parent.tags.get(tag.ORIGIN, parent.id)
    named = tag.PARENT if dialect == "." else tag.BRANCH
    return {tag.ORIGIN: origin, named: parent.id}
