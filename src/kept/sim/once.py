"""Callers of `app.once` in several processes, and what must be true of the results that they get.

The oracle knows nothing of the ledger: a result names the run that made it, and is held against what
was known when it was asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Final

from kept.client.connection import Connection
from kept.errors import ConnectionFailedError, RequestError
from kept.sdk.functions import Function, Registry
from kept.sdk.ledger import Asked
from kept.sdk.ledger import Ledger as CallLedger
from kept.sdk.services import Services
from kept.sim.ledger import Ledger
from kept.sim.process import Process
from kept.sim.runtime import SimulatedRuntime

if TYPE_CHECKING:
    from kept.sim.world import World

# Their results stand for as long as any world lasts.
LASTING: Final = ("charge-1", "charge-2", "charge-3")
LASTING_MS: Final = 10 * 366 * 86_400_000
# Those of these are made again and again.
PASSING: Final = ("report-1", "report-2")
PASSING_MS: Final = (0, 500, 5_000)
# Longer than some leases, so that they must be renewed.
PROMPT_TTL_MS: Final = (500, 1_500)
LONGEST_RUN_SECONDS: Final = 2.0
SHARE_OF_FAILURES: Final = 0.3
SHARE_OF_CANCELED: Final = 0.3
CALLERS_PER_CLIENT: Final = 2
PAUSE_SECONDS: Final = 1.5
ASK_AGAIN_SECONDS: Final = 0.5
RECORDED_ONCE: Final = "a call is recorded once"
SAME_KEY: Final = "runs of a call share their idempotency key"
ONE_RUNNER: Final = "a call has one runner"


class DeclinedError(Exception):
    """What a run fails with."""


class OnceOracle:
    """What callers were told."""

    def __init__(self, ledger: Ledger, *, calm: bool) -> None:
        self._ledger = ledger
        self._calm = calm
        # By idempotency key, and of the calls that last by their key.
        self._results: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._running: Counter[str] = Counter()

    def began(self, key: str, idempotency_key: str) -> None:
        """A run begins."""
        first = self._keys.setdefault(key, idempotency_key)
        if key in LASTING and first != idempotency_key:
            self._ledger.break_off(SAME_KEY, f"{key}: {first}, then {idempotency_key}")
        if idempotency_key in self._results:
            # Its lease may have been taken before the record, and only now it begins.
            self._check_calm(f"{idempotency_key} runs after its result was told")
        if self._running[idempotency_key]:
            self._check_calm(f"{idempotency_key} runs twice at a time")
        self._running[idempotency_key] += 1

    def ended(self, idempotency_key: str) -> None:
        """A run is over, however."""
        self._running[idempotency_key] -= 1

    def answered(self, key: str, idempotency_key: str, run: str) -> None:
        """Somebody was told a result."""
        first = self._results.setdefault(idempotency_key, run)
        if first != run:
            self._ledger.break_off(RECORDED_ONCE, f"{idempotency_key}: {first}, then {run}")
        if key in LASTING and self._keys.get(key) != idempotency_key:
            self._ledger.break_off(RECORDED_ONCE, f"{key}: another result, of {idempotency_key}")

    def _check_calm(self, why: str) -> None:
        """Where nothing fails no lease is lost, so nothing can be run beside another."""
        if self._calm:
            self._ledger.break_off(ONE_RUNNER, why)


class Caller:
    """One of those who call in a client's process."""

    def __init__(
        self,
        world: World,
        process: Process,
        runtime: SimulatedRuntime,
        connection: Connection,
        number: int,
    ) -> None:
        self._world = world
        self._oracle = world.once
        self._process = process
        self._runtime = runtime
        self._services = Services(connection, runtime, Registry(), "default")
        self._random: Random = world.random(f"once {process} {number}")
        self._name = f"{process.name}-{process.incarnation}-{number}"
        # Mostly as long as workers have: in a slow world a shorter lease is lost before it is renewed.
        leases = PROMPT_TTL_MS if world.mix.prompt else (int(world.mix.lease_seconds * 1_000),)
        self._ttl_ms = self._random.choice(leases)
        self._runs = 0

    async def run(self) -> None:
        """Calls while the world is busy; then gets each result once more, as everybody must."""
        while self._world.busy:
            pause = PAUSE_SECONDS * self._world.pace
            await self._runtime.sleep(self._random.expovariate(1 / pause))
            key = self._random.choice((*LASTING, *PASSING))
            if self._random.random() < SHARE_OF_CANCELED:
                await self._called_and_canceled(key)
            else:
                await self._called(key, fails=self._random.random() < SHARE_OF_FAILURES)
        for key in (*LASTING, *PASSING):
            while not await self._called(key, fails=False):
                await self._runtime.sleep(ASK_AGAIN_SECONDS)

    async def _called_and_canceled(self, key: str) -> None:
        calling = self._runtime.spawn(self._called(key, fails=False), f"once-{key}")
        await self._runtime.sleep(self._random.uniform(0, LONGEST_RUN_SECONDS))
        calling.cancel()
        await asyncio.wait((calling,))

    async def _called(self, key: str, *, fails: bool) -> bool:
        """Whether there was a result."""
        window = LASTING_MS if key in LASTING else self._random.choice(PASSING_MS)
        effect = Function(self._effect(key, fails=fails))
        asked = Asked(key, effect, (), {}, window, self._ttl_ms)
        self._world.begin_waiting(self._process, f"once {key}")
        try:
            idempotency_key, run = await CallLedger(self._services, asked).result()
        except (ConnectionFailedError, RequestError, DeclinedError) as error:
            self._world.trace.note("failed", self._process.name, type(error).__name__)
            return False
        finally:
            self._world.end_waiting(self._process, f"once {key}", "once answer")
        self._oracle.answered(key, idempotency_key, run)
        return True

    def _effect(self, key: str, *, fails: bool) -> Callable[[str], Awaitable[list[str]]]:
        async def effect(idempotency_key: str) -> list[str]:
            self._runs += 1
            run = f"{self._name}-{self._runs}"
            self._oracle.began(key, idempotency_key)
            try:
                await self._runtime.sleep(self._random.uniform(0, LONGEST_RUN_SECONDS))
            finally:
                self._oracle.ended(idempotency_key)
            if fails:
                raise DeclinedError
            return [idempotency_key, run]

        return effect


def call_once(
    world: World, process: Process, runtime: SimulatedRuntime, connection: Connection
) -> None:
    """Begins a client's part in it."""
    for number in range(1, CALLERS_PER_CLIENT + 1):
        caller = Caller(world, process, runtime, connection, number)
        runtime.spawn(caller.run(), f"once-{number}")
