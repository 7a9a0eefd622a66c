"""Bugs that mix tenants (B7), and one that mixes programs (B9)."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from kept.protocol import requests as r
from kept.protocol.storage import DEFAULT_TENANT
from kept.sim.mix import Mix
from kept.sim.zoo.bug import Menagerie

TENANTS: Final = Menagerie()
bug = TENANTS.bug


def _has_tenants(mix: Mix) -> bool:
    return mix.tenants


@bug(
    "tenant-not-asked",
    "Requests that travel alone are done for the default tenant, whoever asks.",
    "kept.server.reception:Reception._submit",
    fits=_has_tenants,
)
def _tenant_not_asked(original: Any) -> Any:
    async def submit(self: Any, admitted: Any) -> Any:
        authority = replace(admitted.authority, tenant=DEFAULT_TENANT)
        return await original(self, replace(admitted, authority=authority))

    return submit


@bug(
    "search-of-all-tenants",
    "A search looks at the records of the default tenant, whoever asks.",
    "kept.engine.searching:Searching.answer",
    fits=_has_tenants,
)
def _search_of_all_tenants(original: Any) -> Any:
    async def answer(self: Any, request: Any, now: int, tenant: str, prefix: Any) -> Any:
        return await original(self, request, now, DEFAULT_TENANT, prefix)

    return answer


@bug(
    "functions-not-asked",
    "A claim gets work of any function, whatever its worker knows.",
    "kept.machine.queues:heads_of",
)
def _functions_not_asked(original: Any) -> Any:
    def heads_of(request: r.TaskClaim) -> Any:
        return original(replace(request, functions=None))

    return heads_of
