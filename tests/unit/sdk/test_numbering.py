"""A replay by code that names steps otherwise than what recorded them."""

from __future__ import annotations

import kept
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import ClaimResult, DeadLetterResult
from tests.unit.sdk.site import eventually, site

OLD = Value(headers={"kept-format": "1", "kept-numbering": "0"}, data='{"args":[],"kwargs":{}}')
TAGS = {"resonate:target": "queue://default", "kept:function": "flow@1"}


async def test_another_numbering_is_refused() -> None:
    """Recorded work of another scheme is halted with a dead letter that says so, and nothing of it
    runs; work of that scheme that nobody has begun is no concern."""
    app = kept.App("memory://")
    began = []

    @app.function
    async def flow(ctx: kept.Context) -> str:
        began.append(ctx.id)
        return "done"

    async with site() as place:
        send = place.connection().send
        await send(r.PromiseCreate("old", NEVER_MS, OLD, TAGS))
        claimed = (await send(r.TaskClaim(["default"], "before", 60_000, preload=0))).data
        assert isinstance(claimed, ClaimResult)
        assert len(claimed.tasks) == 1
        step = r.PromiseCreate("old.1", NEVER_MS, OLD, {"resonate:parent": "old"})
        assert (await send(r.TaskRecordStep("old", 1, step, PromiseState.RESOLVED))).ok
        assert (await send(r.TaskRelease("old", 1))).ok
        await send(r.PromiseCreate("fresh", NEVER_MS, OLD, TAGS))
        place.worker(app)

        async def letter() -> DeadLetterResult | None:
            data = (await send(r.DeadGet("old"))).data
            return data if isinstance(data, DeadLetterResult) else None

        found = (await eventually(letter)).letter
        assert await place.app(app).handle("fresh").result(timeout=10) == "done"
    assert began == ["fresh"]
    assert (found.reason, found.halted) == ("nondeterministic", True)
    assert "scheme 0" in (found.error.data or "")
