"""What workers run while they are killed: workflows with steps, calls, sleeps, fan-out, a child, and a
promise that somebody outside settles. Every effect has a key."""

from __future__ import annotations

import asyncio
import os
import zlib
from typing import Final

import kept
from tests.crash.effects import EffectLedger, effect

PACKS: Final = 3
STAMPS: Final = 4
APPROVAL: Final = "approval"
NAP_SECONDS: Final = 0.03

app = kept.App(
    os.environ.get("CRASH_URL", "memory://"),
    ttl=float(os.environ.get("CRASH_TTL", "1")),
    cache=int(os.environ.get("CRASH_CACHE", "1000")),
    grace=0.5,
)


def _ledger() -> EffectLedger:
    return EffectLedger(os.environ["CRASH_LEDGER"])


def worth(key: str) -> int:
    """What the effect under a key is worth, whoever has it."""
    return zlib.crc32(key.encode()) % 1_000


def _have(key: str) -> int:
    _ledger().put(effect(key, worth(key)))
    return worth(key)


@app.function
async def charge(key: str) -> int:
    """A step on the worker's loop."""
    return _have(key)


@app.function
def pack(key: str) -> int:
    """A job that runs in a thread, and dies with its worker now and then, which is no failure of its."""
    return _have(key)


@app.function(retry=kept.Constant(attempts=40, delay=0.01))
async def stamp(key: str) -> int:
    """A step that fails after its effect, the first time."""
    is_first = not _ledger().tries(key)
    found = _have(key)
    if is_first:
        raise ConnectionResetError("the first one never gets through")
    return found


@app.function
async def ship(ctx: kept.Context, key: str) -> int:
    """A workflow within the other one."""
    first = await ctx.run(charge, f"{key}/first")
    await ctx.sleep(NAP_SECONDS)
    return first + await ctx.call(pack, f"{key}/second")


@app.function
async def order(ctx: kept.Context, key: str) -> int:
    """The workflow."""
    total = await ctx.run(charge, f"{key}/charge")
    total += sum(await asyncio.gather(*(ctx.call(pack, f"{key}/pack-{n}") for n in range(PACKS))))
    await ctx.sleep(NAP_SECONDS)
    approval = ctx.promise(APPROVAL, type=int)
    child = ctx.call(ship, f"{key}/ship")
    async with asyncio.TaskGroup() as group:
        stamps = [group.create_task(_stamped(ctx, f"{key}/stamp-{n}")) for n in range(STAMPS)]
    total += sum(each.result() for each in stamps)
    return total + await child + await approval


async def _stamped(ctx: kept.Context, key: str) -> int:
    return await ctx.run(stamp, key)


def effects_of(key: str) -> list[str]:
    """The keys of all effects of an order: each must be there, and no other."""
    return [
        f"{key}/charge",
        *(f"{key}/pack-{n}" for n in range(PACKS)),
        f"{key}/ship/first",
        f"{key}/ship/second",
        *(f"{key}/stamp-{n}" for n in range(STAMPS)),
    ]


def result_of(key: str, approval: int) -> int:
    """The only right result of an order."""
    return sum(worth(each) for each in effects_of(key)) + approval
