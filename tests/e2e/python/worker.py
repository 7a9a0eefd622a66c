"""A worker: offers every function to its group until it is killed."""

from __future__ import annotations

import asyncio

from functions import register
from support import connect


async def main() -> None:
    register(connect())
    await asyncio.Event().wait()


asyncio.run(main())
