"""A client: one command, one `result` or `error` event, then the end.

  client.py run      ID FUNC ARGS         run here; this process is a member of its group
  client.py rpc      ID FUNC ARGS TARGET  have some worker of the group TARGET run it
  client.py get      ID                   wait for what is already there
  client.py resolve  ID VALUE             settle a promise from outside
  client.py schedule ID CRON FUNC ARGS TARGET

ARGS (a list) and VALUE are JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from functions import register
from resonate.types import Value
from support import connect, connected, emit

if TYPE_CHECKING:
    from resonate.resonate import Resonate


async def answer(resonate: Resonate, command: str, id: str, rest: list[str]) -> Any:
    match command:
        case "run":
            register(resonate)
            return await resonate.run(id, rest[0], *json.loads(rest[1])).result()
        case "rpc":
            caller = resonate.options(target=rest[2])
            return await caller.rpc(id, rest[0], *json.loads(rest[1])).result()
        case "get":
            return await (await resonate.get(id)).result()
        case "resolve":
            return (await resonate.promises.resolve(id, Value(data=json.loads(rest[0])))).state
        case "schedule":
            caller = resonate.options(target=rest[3])
            await caller.schedule(id, rest[0], rest[1], args=tuple(json.loads(rest[2])))
            return (await resonate.schedules.get(id)).cron
        case _:
            raise SystemExit(f"unknown command {command}")


async def main() -> None:
    command, id, *rest = sys.argv[1:]
    resonate = connect()
    await connected.wait()
    try:
        emit("result", value=await answer(resonate, command, id, rest))
    except Exception as error:  # noqa: BLE001 - whatever it is, the test reads it
        emit("error", message=str(error))
    await resonate.stop()


asyncio.run(main())
