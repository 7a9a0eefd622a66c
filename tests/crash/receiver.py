"""Whom a server tells of settlements over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from aiohttp import web


class Receiver:
    """Takes every message and counts, for each promise, how often it was told of it."""

    def __init__(self) -> None:
        self.url = ""
        self.told: Counter[str] = Counter()
        self._arrived = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/"

    async def heard(self, ids: set[str]) -> None:
        """Waits until it was told of all of these."""
        while not self.told.keys() >= ids:
            self._arrived.clear()
            await self._arrived.wait()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        message = json.loads(await request.read())
        self.told[message["data"]["promise"]["id"]] += 1
        self._arrived.set()
        return web.Response()
