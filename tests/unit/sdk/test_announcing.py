"""Workers announce what they run, and calls by name find it (protocol B9)."""

from __future__ import annotations

import asyncio

import kept
from kept.protocol import requests as r
from kept.protocol import worker_requests as w
from kept.protocol.responses import FunctionPage, FunctionResult, PromiseResult, WorkerPage
from tests.unit.sdk.site import DEADLINE_SECONDS, Site, eventually, site


async def announced(place: Site, name: str) -> FunctionResult:
    async def look() -> FunctionResult | None:
        response = await place.engine.submit(w.FunctionGet(name))
        return response.data if isinstance(response.data, FunctionResult) else None

    return await eventually(look)


def packing_app() -> kept.App:
    """Its function works on a queue of its own."""
    app = kept.App("memory://", worker=False, queue="warehouse")

    @app.function(queue="packing", version=2)
    async def pack(parcel: str, weight: float = 1.0) -> str:
        return f"packed {parcel}"

    return app


async def test_a_worker_announces_what_it_runs_until_it_stops() -> None:
    """Versions, queues and signatures are listed; a worker that stops takes its leave."""
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        worker = place.worker(packing_app())
        found = await announced(place, "pack")
        assert (found.function.versions, found.function.queues) == ([2], ["packing"])
        (runner,) = found.runners
        assert (runner.pid, runner.version, runner.queue) == (worker.pid, 2, "packing")
        assert runner.schema == {
            "parameters": [
                {"name": "parcel", "type": "str", "required": True},
                {"name": "weight", "type": "float", "required": False},
            ],
            "returns": "str",
            "durable": False,
        }
        page = (await place.engine.submit(w.WorkerList())).data
        assert isinstance(page, WorkerPage)
        assert [each.queues for each in page.workers] == [["warehouse", "packing"]]
        names = (await place.engine.submit(w.FunctionList())).data
        assert isinstance(names, FunctionPage)
        assert [each.name for each in names.functions] == ["pack"]
        await worker.stop()
        place._workers.clear()

        async def gone() -> bool:
            return (await place.engine.submit(w.FunctionGet("pack"))).status == 404

        await eventually(gone)


async def test_a_call_by_name_goes_to_the_queue_that_is_announced() -> None:
    """From outside and from durable code; where nobody announces it, to the app's own queue."""
    caller = kept.App("memory://", worker=False, queue="front")

    @caller.function
    async def order(ctx: kept.Context) -> str:
        result: str = await ctx.call("pack", parcel="b")
        return result

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        client = place.app(caller)
        await client.enqueue("unknown", id="lost")
        lost = (await place.engine.submit(r.PromiseGet("lost"))).data
        assert isinstance(lost, PromiseResult)
        assert lost.promise.tags["resonate:target"] == "queue://front"
        place.worker(packing_app())
        await announced(place, "pack")
        place.worker(caller)
        assert await (await client.enqueue("pack@2", args={"parcel": "a"})) == "packed a"
        assert await client.run(order) == "packed b"
