"""Searching by what running work says of itself, on both stores (protocol B8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.responses import PromisePage
from kept.runtime import SystemRuntime
from kept.stores.open import open_store
from tests.unit.machine.world import create, fulfill

stores = pytest.mark.parametrize("kind", ["memory", "sqlite"])
IDS = ["a", "a.b", "a\x7f", "b", "ä", '"']


def url_of(kind: str, folder: Path) -> str:
    return "memory://" if kind == "memory" else f"sqlite:///{folder}/kept.db"


async def found(engine: Engine, prefix: str | None = None, **fields: object) -> list[str]:
    """The ids of all pages, in order."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        request = r.PromiseSearch(limit=2, cursor=cursor, **fields)  # type: ignore[arg-type]
        response = await engine.submit(request, prefix=prefix)
        assert isinstance(response.data, PromisePage), response
        ids += [promise.id for promise in response.data.promises]
        cursor = response.data.cursor
        if cursor is None:
            return ids


@stores
async def test_promises_are_found_by_what_their_work_says(kind: str, tmp_path: Path) -> None:
    """All given must match, state and tags too; in order of id, page by page, within a prefix."""
    runtime = SystemRuntime()
    engine = Engine(open_store(url_of(kind, tmp_path), runtime), runtime)
    await engine.start()
    try:
        for id in IDS:
            action = r.CreateAction(create(id, target="http://worker.test/", function=f"f{id}"))
            await engine.submit(r.TaskCreate("w", 60_000, action))
            said: dict[str, str | None] = {"stage": "packing", "own": id}
            response = await engine.submit(r.TaskAnnotate(id, 1, said))
            assert response.ok, response
        everyone = sorted(IDS, key=str.encode)
        assert await found(engine, attributes={"stage": "packing"}) == everyone
        assert await found(engine, attributes={"stage": "packing", "own": "b"}) == ["b"]
        assert await found(engine, attributes={"stage": "pack"}) == []
        assert await found(engine, prefix="a", attributes={"stage": "packing"}) == [
            "a",
            "a.b",
            "a\x7f",
        ]
        await engine.submit(fulfill("b", 1))
        settled = {"state": PromiseState.RESOLVED, "attributes": {"stage": "packing"}}
        assert await found(engine, **settled) == ["b"]
        tagged = {"tags": {"kept:function": "fa.b"}, "attributes": {"stage": "packing"}}
        assert await found(engine, **tagged) == ["a.b"]
        await engine.submit(r.TaskAnnotate("a", 1, {"stage": None}))
        assert await found(engine, attributes={"stage": "packing"}) == [
            id for id in everyone if id != "a"
        ]
    finally:
        await engine.stop()
