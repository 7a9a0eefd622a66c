"""What is true of a world in which nothing goes wrong: no step twice, no failed request, nothing late."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from kept.client.connection import Connection
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.responses import SHED, PromiseResult, Response
from kept.sim.breakage import Broken
from kept.sim.inspector import LATE_MS
from kept.sim.programs.failing import STEP_ATTEMPTS
from kept.sim.programs.jobs import DOOMED_ATTEMPTS
from kept.sim.runtime import EPOCH_MS

if TYPE_CHECKING:
    from kept.sim.world import World

# How often what fails on purpose is tried, by what its key contains.
_TRIES: Final = {
    "third/": DOOMED_ATTEMPTS,
    "doomed/": DOOMED_ATTEMPTS,
    "/tries/exhausted/": STEP_ATTEMPTS,
    "/tries/given_up/": 1,
    "/recovers": 2,
}
# How long (s) it waits at least after a failure, as its policy says.
_WAITS: Final = {"third/": 0.3, "doomed/": 0.1, "/tries/exhausted/": 0.1}
# Milliseconds are whole numbers.
_ROUNDING_SECONDS: Final = 0.002


def check_calm(world: World) -> None:
    """Holds a world without faults against what must then be true. Raises `Broken`."""
    # The id of what has left may have been started anew.
    disturbed = (*world.goals.disturbed(), *world.goals.departed)
    for key, count in world.boundary.tries.items():
        if count != 1 and not key.startswith(disturbed):
            raise Broken("in a calm world no step runs twice", f"{key}: {count} times")
    for key, count in world.boundary.attempts.items():
        for part, expected in _TRIES.items():
            if part in key and count != expected and not key.startswith(disturbed):
                why = f"{key}: {count} times, not {expected}"
                raise Broken("tries are counted", why)
    _check_waits(world, disturbed)
    for (kind, status), count in world.ledger.answers.items():
        if status >= SHED and count > world.ledger.provoked[kind, status]:
            raise Broken("in a calm world requests succeed", f"{kind}: {status}, {count} times")


def _check_waits(world: World, disturbed: tuple[str, ...]) -> None:
    for key, instants in world.boundary.attempted_at.items():
        for part, seconds in _WAITS.items():
            gap = min((b - a for a, b in pairwise(instants)), default=seconds)
            if part in key and gap < seconds - _ROUNDING_SECONDS and not key.startswith(disturbed):
                why = f"{key}: again after {gap:.3f} s, not {seconds}"
                raise Broken("tries wait for each other", why)


class TimedConnection:
    """A `Connection` whose waits are timed, where nothing may come late."""

    def __init__(
        self,
        inner: Connection,
        world: World,
    ) -> None:
        self._inner = inner
        self._world = world

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        asked = self._world.milliseconds()
        response = await self._inner.send(request, request_id=request_id)
        # Servers that stop answer whoever waits.
        timed = self._world.mix.prompt and self._world.restarting
        if timed and isinstance(request, r.PromiseWait):
            self._waited(request, asked, response)
        return response

    def _waited(self, request: r.PromiseWait, asked: float, response: Response) -> None:
        if not isinstance(response.data, PromiseResult):
            return
        if response.data.promise.state is not PromiseState.PENDING:
            self._world.inspector.waited(request.id, asked)
            return
        self._check_deadline(request, asked, response.data.promise.timeout_at)
        waited = self._world.milliseconds() - asked
        if waited < request.timeout - LATE_MS:
            why = f"{request.id}: {waited:.0f} of {request.timeout} ms"
            self._world.ledger.break_off("waits are as long as asked", why)

    def _check_deadline(self, request: r.PromiseWait, asked: float, timeout_at: int) -> None:
        """A promise that nobody can await has no timer: whoever waits for it sees its deadline pass."""
        over = self._world.virtual_ms - max(timeout_at, EPOCH_MS + asked)
        if over > LATE_MS:
            why = f"{request.id}: pending {over:.0f} ms after its deadline"
            self._world.ledger.break_off("a waiter is told in time", why)

    async def close(self) -> None:
        await self._inner.close()
