"""Drives a server with random requests and compares every answer with the model's.

    python -m kept.check.differential --url http://127.0.0.1:8420 --seed 1 --requests 20000

The server must run with `--debug` and is emptied first. Each request carries its own debug time,
with a `debug.tick` at that time before it and after it; `--sparse` leaves most ticks out, so that the
background lags behind; `--batch N` sends through `/batch`. Exit status 1 means a difference, which is
printed with a short list of requests that still shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from kept.check.choices import POSSIBLE_PAIRS
from kept.check.compare import Reply
from kept.check.comparison import Comparison, Difference, Script, Send
from kept.check.generate import START_MS, Generator, envelope
from kept.check.minimise import minimise

JsonObject = dict[str, Any]

DEFAULT_SNAP_EVERY: Final = 50
SPARSE_TICKS: Final = 0.1
MAX_MINIMISING_REQUESTS: Final = 60_000
REQUEST_TIMEOUT_SECONDS: Final = 60


@dataclass
class Outcome:
    """What a run found: at most one difference, with a short script that shows it again."""

    seed: int
    requests: int = 0
    difference: Difference | None = None
    script: Script = field(default_factory=list)
    seen: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def missed(self) -> list[tuple[str, int]]:
        """The (kind, status) pairs that are possible and did not occur."""
        return sorted(POSSIBLE_PAIRS - self.seen.keys())

    def __str__(self) -> str:
        if self.difference is None:
            return f"seed {self.seed}: {self.requests} requests, no difference"
        lines = [f"seed {self.seed}: request {self.requests} {self.difference}"]
        lines.append(
            f"{len(self.script)} requests that show it, after debug.start and debug.reset:"
        )
        return "\n".join(lines + [json.dumps(envelope) for envelope in self.script])


class Driver:
    """One run: generates from the model's state, asks both, compares."""

    def __init__(
        self,
        send: Send,
        seed: int,
        *,
        sparse: bool = False,
        batch: int = 1,
        snap_every: int = DEFAULT_SNAP_EVERY,
    ) -> None:
        self._send = send
        self._sparse = sparse
        self._batch = batch
        self._snap_every = snap_every
        self._comparison = Comparison(send, batch)
        self._generator = Generator(seed, self._comparison.model)
        self._outcome = Outcome(seed)
        self._number = 0
        # Everything since the last reset.
        self._script: Script = []

    async def run(self, requests: int) -> Outcome:
        """Asks that many requests, or as many as it takes to find a difference.

        The server is left paused, as it is then known what it holds.
        """
        outcome, comparison = self._outcome, self._comparison
        await self._ask({"kind": "debug.start", "data": {}})
        await self._ask({"kind": "debug.reset", "data": {}})
        while comparison.difference is None and outcome.requests < requests:
            outcome.requests += 1
            await self._step()
        outcome.difference = await comparison.flush()
        outcome.seen = comparison.seen
        if outcome.difference is not None:
            budget = MAX_MINIMISING_REQUESTS
            outcome.script = await minimise(self._script, self._still_differs, budget)
        return outcome

    async def finish(self) -> Outcome:
        """Lets the server's background go on, by the wall clock."""
        if self._outcome.difference is None:
            await self._ask({"kind": "debug.stop", "data": {}})
            self._outcome.difference = await self._comparison.flush()
        return self._outcome

    async def _step(self) -> None:
        """The next request, between its ticks."""
        generator = self._generator
        request = generator.next()
        if request["kind"] == "debug.reset":
            self._script = []
        await self._tick_unless_lagging()
        reply = await self._ask(request)
        generator.observe(request, reply.data)
        await self._tick_unless_lagging()
        if self._outcome.requests % self._snap_every == 0:
            await self._ask({"kind": "debug.snap", "data": {}})

    async def _tick_unless_lagging(self) -> None:
        generator = self._generator
        lagging = self._sparse and generator.random.random() >= SPARSE_TICKS
        if not lagging or self._comparison.model.overdue_edges(generator.now):
            await self._ask({"kind": "debug.tick", "data": {"time": generator.now}})

    async def _ask(self, request: JsonObject) -> Reply:
        self._number += 1
        asked = envelope(request, self._generator.now, self._number)
        self._script.append(asked)
        return await self._comparison.ask(asked)

    async def _still_differs(self, script: Script) -> bool:
        comparison = Comparison(self._send, self._batch)
        opening = [
            envelope({"kind": kind, "data": {}}, START_MS, 0)
            for kind in ("debug.start", "debug.reset")
        ]
        found = await comparison.play([*opening, *script])
        first = self._comparison.difference
        return found is not None and first is not None and found.like(first)


class Http:
    """A server by its URL, as a `Send`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def send(self, script: Script) -> list[tuple[int, JsonObject]]:
        """One envelope to `POST /`, several to `POST /batch` (protocol B1)."""
        if len(script) == 1:
            return [await self._post("/", script[0])]
        status, bodies = await self._post("/batch", script)
        if status != 200 or not isinstance(bodies, list):
            raise RuntimeError(f"the batch failed with {status}: {bodies}")
        return [(body["head"]["status"], body) for body in bodies]

    async def _post(self, path: str, content: Any) -> tuple[int, Any]:
        async with self._session.post(self._url + path, json=content) as response:
            text = await response.text()
            try:
                return response.status, json.loads(text)
            except ValueError:
                return response.status, {"data": f"not JSON: {text[:1_000]}"}


async def main(arguments: Sequence[str]) -> int:
    """The command; 1 where a difference was found."""
    options = _options(arguments)
    timeout = aiohttp.ClientTimeout(REQUEST_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        driver = Driver(
            Http(session, options.url).send,
            options.seed,
            sparse=options.sparse,
            batch=options.batch,
            snap_every=options.snap_every,
        )
        await driver.run(options.requests)
        outcome = await driver.finish()
    sys.stdout.write(f"{outcome}\n")
    if outcome.difference is None and outcome.missed:
        missed = ", ".join(f"{kind} {status}" for kind, status in outcome.missed)
        sys.stdout.write(f"never answered in this run: {missed}\n")
    return 0 if outcome.difference is None else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m kept.check.differential")
    parser.add_argument("--url", default="http://127.0.0.1:8420")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--sparse", action="store_true", help="leave most ticks out")
    parser.add_argument("--batch", type=int, default=1, help="requests that travel together")
    parser.add_argument("--snap-every", type=int, default=DEFAULT_SNAP_EVERY)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
