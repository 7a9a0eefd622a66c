"""The functions that workers offer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from support import HOLD, PID, emit

if TYPE_CHECKING:
    from resonate.context import Context
    from resonate.resonate import Resonate


async def add(ctx: Context, a: int, b: int) -> int:
    emit("ran", func="add", id=ctx.info.id)
    return a + b


async def echo(ctx: Context, value: Any) -> Any:
    emit("ran", func="echo", id=ctx.info.id)
    return value


async def whoami(ctx: Context) -> str:
    emit("ran", func="whoami", id=ctx.info.id)
    return PID


async def step(ctx: Context, name: str) -> str:
    emit("step", name=name)
    return name


async def second(ctx: Context) -> str:
    emit("step", name="second")
    if HOLD:
        emit("holding")
        await asyncio.Event().wait()
    return "second"


async def broken(ctx: Context, message: str) -> None:
    raise ValueError(message)


async def steps(ctx: Context, n: int) -> list[str]:
    return [await ctx.run(step, f"step-{i}") for i in range(n)]


async def relay(ctx: Context) -> list[str]:
    return [await ctx.run(step, "first"), await ctx.run(second)]


async def remote(ctx: Context, group: str, pairs: list[list[int]]) -> list[int]:
    futures = [ctx.options(target=group).rpc("add", a, b) for a, b in pairs]
    return [await future for future in futures]


async def nap(ctx: Context, ms: int, times: int) -> str:
    for i in range(times):
        await ctx.sleep(timedelta(milliseconds=ms))
        await ctx.run(step, f"woke-{i}")
    return "rested"


async def launch(ctx: Context, group: str, value: Any) -> str:
    return await ctx.options(target=group).detached("echo", value)


async def fail(ctx: Context, message: str) -> None:
    await ctx.run(broken, message)


async def rescue(ctx: Context, group: str, message: str) -> str:
    try:
        await ctx.options(target=group).rpc("fail", message)
    except Exception as error:  # noqa: BLE001 - its type may be any, or lost on the way
        return f"rescued: {error}"
    return "nothing failed"


async def approval(ctx: Context) -> dict[str, Any]:
    decision = ctx.promise()
    emit("waiting", id=await decision.id())
    return {"decision": await decision}


FUNCTIONS = [add, echo, whoami, steps, relay, remote, nap, launch, fail, rescue, approval]


def register(resonate: Resonate) -> None:
    for function in FUNCTIONS:
        resonate.register(function)
