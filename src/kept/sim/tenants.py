"""A second tenant, whose clients use the same ids, queues and schedules at the same time (B7).

It plays every script that a client plays beside it, under the same names, so that whatever one tenant
sees or changes of the other makes an answer differ from the one that is written down. And it asks
raw requests about the same ids, held against a ledger of its own.
"""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from kept.client.connection import Connection
from kept.client.http import HttpConnection, _Item
from kept.errors import ConnectionFailedError
from kept.protocol.requests import Request
from kept.protocol.responses import Response
from kept.protocol.storage import DEFAULT_TENANT, Dump
from kept.server.authority import EVERYTHING, Authority
from kept.sim import scripts
from kept.sim.breakage import Broken
from kept.sim.ledger import Ledger, ObservedConnection
from kept.sim.process import Process
from kept.sim.requests import RawClient
from kept.sim.runtime import SimulatedRuntime
from kept.sim.scripts import Script

if TYPE_CHECKING:
    from kept.sim.world import World

TENANT: Final = "twin"
APART: Final = "tenants are apart"
# How values of its raw clients begin, and those of the other tenant's.
_OURS: Final = f"{TENANT}-"
_THEIRS: Final = "client-"
# Numbers of its requests: apart from those of the other connections of its process.
_FIRST_NUMBER: Final = 1_000_000_000
# It asks so many times less than a client does.
SHARE_OF_ASKED: Final = 0.25


class NamedTenants:
    """An authenticator to which a token is a tenant's name, and no token the default one."""

    def authenticate(self, token: str | None) -> Authority:
        """Everybody may do everything, within their tenant."""
        return msgspec.structs.replace(EVERYTHING, tenant=token) if token else EVERYTHING


class TenantConnection(HttpConnection):
    """A connection of the second tenant."""

    def _encode(self, request: Request, request_id: str | None) -> _Item:
        item = super()._encode(request, request_id)
        envelope = msgspec.json.decode(item.body)
        envelope["head"]["auth"] = TENANT
        item.body = msgspec.json.encode(envelope)
        return item


class ForeignWatch:
    """A `Connection` in whose answers nothing of the other tenant may be."""

    def __init__(self, inner: Connection, ledger: Ledger) -> None:
        self._inner = inner
        self._ledger = ledger

    async def send(self, request: Request, *, request_id: str | None = None) -> Response:
        response = await self._inner.send(request, request_id=request_id)
        if f'"data":"{_THEIRS}'.encode() in msgspec.json.encode(response.data):
            self._ledger.break_off(APART, f"{request} was answered {response.data}")
        return response

    async def close(self) -> None:
        await self._inner.close()


class Twin:
    """What a client's process does in the second tenant."""

    def __init__(self, world: World, process: Process, runtime: SimulatedRuntime, url: str) -> None:
        self._world = world
        self._process = process
        self._runtime = runtime
        servers = [m.name for m in world.machines.values() if m.role == "server"]
        exchange = world.network.exchange(process, servers)
        connection = TenantConnection(url, runtime, exchange=exchange)
        connection._numbers = itertools.count(_FIRST_NUMBER)
        observed = ObservedConnection(connection, world.twins, process)
        self._connection = ForeignWatch(observed, world.ledger)
        pid = f"{_OURS}{process.name}-{process.incarnation}"
        # Nobody of this tenant is at the receivers' addresses.
        self._raw = RawClient(
            pid,
            self._connection,
            runtime,
            world.twins.succeeded,
            [],
            world.ledger.break_off,
            world.plan.kinds,
        )

    async def ask(self, random: Random) -> None:
        """Sometimes a raw request, about the ids that the other tenant uses too."""
        if random.random() >= SHARE_OF_ASKED:
            return
        try:
            await self._raw.ask(random)
        except ConnectionFailedError:
            self._world.trace.note("failed", self._process.name, TENANT)

    async def play(self, name: str, key: str) -> None:
        """The script that is played in the other tenant, under the same names."""
        mix = self._world.mix
        play = Script(
            key,
            self._connection,
            self._runtime,
            self._world.random(f"twin {key}"),
            exact=scripts.is_exact(mix),
            prompt=mix.prompt,
            provoked=self._world.twins.provoked,
        )
        self._world.trace.note(f"script of {TENANT} {name}", self._process.name, key)
        try:
            await scripts.SCRIPTS[name](play)
        except Broken as broken:
            why = f"{name} of tenant {TENANT}: {broken.why}"
            self._world.ledger.break_off(broken.oracle, why)
        except ConnectionFailedError:
            self._world.trace.note("failed", self._process.name, TENANT)


def check_apart(dumps: dict[str, Dump]) -> None:
    """No tenant's store has what a client of the other one wrote. Raises `Broken`."""
    for tenant, foreign in ((DEFAULT_TENANT, _OURS), (TENANT, _THEIRS)):
        for promise in dumps[tenant].promises.values() if tenant in dumps else ():
            for value in (promise.param, promise.value):
                if (value.data or "").startswith(foreign):
                    raise Broken(APART, f"{tenant}: {promise}")
