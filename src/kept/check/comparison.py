"""One conversation held with a server and with the model at once, request by request.

A script is a list of envelopes, ticks and snapshots included, so a conversation can be held again,
whole or in part, from a reset on.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kept.check.compare import Reply, difference
from kept.check.model import VERSION, Model

JsonObject = dict[str, Any]
Script = list[JsonObject]

# Sends envelopes in this order, as one batch where there are several, and answers in the same order
# with the status and the body of each.
Send = Callable[[Script], Awaitable[list[tuple[int, JsonObject]]]]


@dataclass
class Difference:
    """Where the server and the model part: the request, both answers and the first place."""

    envelope: JsonObject
    expected: Reply
    actual: Reply
    place: str

    def like(self, other: Difference) -> bool:
        """Whether it may have the same cause: the same kind of request, differing at like places."""
        return self._cause() == other._cause()

    def _cause(self) -> tuple[str, str]:
        place = re.sub(r"\[\d+\]", "", self.place.split(": ")[0])
        return self.envelope["kind"], place

    def __str__(self) -> str:
        shown = (
            ("request ", self.envelope),
            ("model   ", {"status": self.expected.status, "data": self.expected.data}),
            ("server  ", {"status": self.actual.status, "data": self.actual.data}),
        )
        lines = [f"{name}{json.dumps(value, ensure_ascii=False)[:2_000]}" for name, value in shown]
        return "\n".join([f"differs at {self.place}", *lines])


class Comparison:
    """A fresh model beside a server; `batch` requests travel together."""

    def __init__(self, send: Send, batch: int = 1) -> None:
        self.model = Model()
        self.seen: Counter[tuple[str, int]] = Counter()
        self.difference: Difference | None = None
        self._send = send
        self._batch = batch
        self._waiting: list[tuple[JsonObject, Reply]] = []
        # The server's cursor for each of the model's, which are for one search only.
        self._cursors: dict[tuple[str, str], str] = {}

    async def play(self, script: Script) -> Difference | None:
        """Asks both, one request after another; the first difference."""
        for envelope in script:
            await self.ask(envelope)
            if self.difference is not None:
                break
        return await self.flush()

    async def ask(self, envelope: JsonObject) -> Reply:
        """The model's answer; the server's is compared with it, once its batch is full."""
        if "cursor" in envelope["data"]:
            # The server's cursor for it may still be on its way.
            await self.flush()
        reply = Reply(*self.model.receive(envelope))
        self._count(str(envelope["kind"]), reply)
        # A copy, as the comparison takes cursors out.
        kept = Reply(reply.status, dict(reply.data) if isinstance(reply.data, dict) else reply.data)
        self._waiting.append((envelope, kept))
        if len(self._waiting) >= self._batch:
            await self.flush()
        return reply

    async def flush(self) -> Difference | None:
        """Sends what waits; the first difference there ever was."""
        waiting, self._waiting = self._waiting, []
        if self.difference is None and waiting:
            self.difference = await self._compare(waiting)
        return self.difference

    async def _compare(self, waiting: list[tuple[JsonObject, Reply]]) -> Difference | None:
        asked = [(self._as_sent(envelope), envelope, reply) for envelope, reply in waiting]
        asked = [each for each in asked if each[0] is not None]
        answers = await self._send([sent for sent, _, _ in asked if sent is not None])
        for (_, envelope, expected), (status, body) in zip(asked, answers, strict=True):
            actual = Reply(status, body.get("data"))
            place = _envelope_problem(envelope, status, body)
            place = place or await self._search_problem(envelope, expected, actual)
            place = place or difference(envelope["kind"], expected, _without_cursor(actual))
            if place is not None:
                return Difference(envelope, expected, actual, place)
        return None

    def _count(self, kind: str, reply: Reply) -> None:
        self.seen[kind, reply.status] += 1
        if kind == "task.fence" and reply.status == 200:
            inner = reply.data["action"]
            self.seen[f"{kind} inner {inner['kind']}", inner["head"]["status"]] += 1

    def _as_sent(self, envelope: JsonObject) -> JsonObject | None:
        """The envelope with the server's own cursor; none where the server gave none."""
        if "cursor" not in envelope["data"]:
            return envelope
        cursor = self._cursors.get(_search_key(envelope, envelope["data"]["cursor"]))
        if cursor is None:
            return None
        return envelope | {"data": envelope["data"] | {"cursor": cursor}}

    async def _search_problem(
        self, envelope: JsonObject, expected: Reply, actual: Reply
    ) -> str | None:
        """Cursors are opaque: they are compared by what they lead to."""
        if (
            not envelope["kind"].endswith(".search")
            or (expected.status, actual.status) != (200,) * 2
        ):
            return None
        cursor = actual.data.get("cursor") if isinstance(actual.data, dict) else None
        theirs = expected.data.pop("cursor", None)
        if theirs is not None:
            if not isinstance(cursor, str):
                return "data.cursor: there is more, and no cursor to it"
            self._cursors[_search_key(envelope, theirs)] = cursor
        elif cursor is not None:
            again = envelope | {"data": envelope["data"] | {"cursor": cursor}}
            [(_, body)] = await self._send([again])
            if any(body["data"].values()):
                return "data.cursor: there is no more, and it leads somewhere"
        return None


def _search_key(envelope: JsonObject, cursor: str) -> tuple[str, str]:
    filters = {name: item for name, item in envelope["data"].items() if name != "cursor"}
    return cursor, json.dumps([envelope["kind"], filters], sort_keys=True)


def _without_cursor(reply: Reply) -> Reply:
    if reply.status != 200 or not isinstance(reply.data, dict) or "cursor" not in reply.data:
        return reply
    return Reply(200, {name: item for name, item in reply.data.items() if name != "cursor"})


def _envelope_problem(envelope: JsonObject, status: int, body: JsonObject) -> str | None:
    """What is wrong with the envelope of an answer (A1)."""
    head = body.get("head")
    if not isinstance(head, dict) or head.get("status") != status:
        return f"head: the status is not the HTTP status {status}: {head}"
    if head.get("version") != VERSION:
        return f"head: the version is not {VERSION}: {head}"
    if head.get("corrId") != envelope["head"]["corrId"]:
        return f"head: the corrId is not echoed: {head}"
    if body.get("kind") != envelope["kind"]:
        return f"kind: not echoed: {body.get('kind')}"
    return None
