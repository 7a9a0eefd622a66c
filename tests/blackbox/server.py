"""`kept serve` as a process of its own, and raw envelopes to it."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import kept

SOURCE = Path(kept.__file__).parents[1]
NEVER = 9007199254740991
TTL = 10_000
# Long ago, so that the clock of the store is the tests' and nobody else's.
START = 1_000_000_000_000

_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
_names = itertools.count(1)


class Server:
    """A server with debug requests, whose clock is `now` and moves only when a test says so.

    With `clock=False` it runs on the real clock, with all its background.
    """

    def __init__(self, place: Path, store: str, *, clock: bool = True) -> None:
        self.place = place
        self.store = store
        self.now: int | None = START if clock else None
        self._start()

    # -- the process -----------------------------------------------------------------------------

    def _start(self) -> None:
        command = ["serve", "--port", "0", "--store", self.store, "--debug"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kept", *command],
            cwd=self.place,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        lines = ""
        while (match := _LISTENING.search(lines)) is None:
            line = self._process.stderr.readline()
            assert line, f"the server ended: {lines}"
            lines += line
        # What it logs afterwards has to go somewhere, or it would block.
        self._drain = Thread(target=self._process.stderr.read)
        self._drain.start()
        self.port = int(match.group(1))

    def crash(self) -> None:
        """Kills it, and starts it again."""
        self.close()
        self._start()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._drain.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    # -- asking ----------------------------------------------------------------------------------

    def post(self, body: Any, path: str = "/") -> tuple[int, Any]:
        """The HTTP status and the answer, as they came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def envelope(self, kind: str, data: dict[str, Any], **head: Any) -> dict[str, Any]:
        fields = {"corrId": "c", "version": "2026-04-01", **head}
        if self.now is not None:
            fields.setdefault("resonate:debug_time", self.now)
        return {"kind": kind, "head": fields, "data": data}

    def ask(self, kind: str, _head: dict[str, Any] | None = None, /, **data: Any) -> Any:
        """Status and data. An error is a text, as the protocol has it (A1)."""
        status, answer = self.post(self.envelope(kind, data, **(_head or {})))
        assert (answer["kind"], answer["head"]["status"]) == (kind, status), answer
        assert (status >= 400) == isinstance(answer["data"], str), answer
        return status, answer["data"]

    def ok(self, kind: str, _head: dict[str, Any] | None = None, /, **data: Any) -> Any:
        """The data of a 200."""
        status, found = self.ask(kind, _head, **data)
        assert status == 200, (kind, data, found)
        return found

    def status(self, kind: str, **data: Any) -> int:
        status, _ = self.ask(kind, **data)
        assert isinstance(status, int)
        return status

    def detail(self, kind: str, **data: Any) -> Any:
        """What a refusal says to programs (B5)."""
        status, answer = self.post(self.envelope(kind, data))
        assert status == 409, answer
        return answer["head"]["kept:detail"]

    def waiting(self) -> int:
        """How many requests wait in it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        match = re.search(r"^kept_requests_waiting (\d+)", text, re.MULTILINE)
        assert match is not None
        return int(match.group(1))

    def pass_time(self, milliseconds: int) -> None:
        """Moves the clock; nothing fires by itself."""
        assert self.now is not None
        self.now += milliseconds

    def tick(self, milliseconds: int = 0) -> None:
        """Moves the clock and takes the background steps that are due."""
        self.pass_time(milliseconds)
        assert self.ask("debug.tick", time=self.now) == (200, [])

    # -- what tests do again and again -----------------------------------------------------------

    def create(self, id: str, queue: str | None = None, **fields: Any) -> Any:
        """Status and data of a create; `tags` by their full names."""
        tags = dict(fields.pop("tags", {}))
        if queue is not None:
            tags["resonate:target"] = f"queue://{queue}"
        return self.ask("promise.create", **{"id": id, "timeoutAt": NEVER, "tags": tags, **fields})

    def job(self, id: str, queue: str, **tags: str) -> None:
        """A job; tags by what follows `kept:`, with _ for -."""
        named = {f"kept:{name.replace('_', '-')}": text for name, text in tags.items()}
        status, data = self.create(id, queue, tags=named)
        assert status == 200, data
        assert data["promise"]["id"] == id

    def claim(self, *queues: str, **fields: Any) -> list[Any]:
        request = {"queues": list(queues), "pid": "w", "ttl": TTL, "limit": 100, **fields}
        found = self.ok("task.claim", **request)["tasks"]
        assert isinstance(found, list)
        return found

    def claimed(self, *queues: str, **fields: Any) -> list[str]:
        return [lease["task"]["id"] for lease in self.claim(*queues, **fields)]

    def fulfill(self, id: str, version: int, state: str = "resolved") -> int:
        action = {"kind": "promise.settle", "data": {"id": id, "state": state}}
        return self.status("task.fulfill", id=id, version=version, action=action)

    def child(self, parent: str, version: int, id: str, **tags: str) -> Any:
        """Status of the inner create of a child, under the parent's lease."""
        lineage = {"resonate:parent": parent, "resonate:branch": parent}
        lineage["resonate:origin"] = parent.partition(".")[0]
        create = {"id": id, "timeoutAt": NEVER, "tags": {**lineage, **tags}}
        action = {"kind": "promise.create", "data": create}
        return self.ok("task.fence", id=parent, version=version, action=action)["action"]

    def suspend(self, id: str, version: int, *awaited: str) -> int:
        actions = [
            {"kind": "promise.register_callback", "data": {"awaited": each, "awaiter": id}}
            for each in awaited
        ]
        return self.status("task.suspend", id=id, version=version, actions=actions)

    def state(self, id: str) -> str:
        return str(self.ok("promise.get", id=id)["promise"]["state"])

    def task_state(self, id: str) -> str:
        return str(self.ok("task.get", id=id)["task"]["state"])

    def letter(self, id: str) -> Any:
        return self.ok("dead.get", id=id)["letter"]


def fresh(name: str = "q") -> str:
    """A name that no other test of this process uses."""
    # Of one length, so that no name with something behind it is another name.
    return f"{name}{next(_names):05d}"
