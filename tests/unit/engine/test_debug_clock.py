"""The debug clock: what a request's own time does to the background."""

from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.responses import PromiseResult
from kept.runtime import SystemRuntime
from kept.stores.memory import MemoryStore

SOON = r.RequestHead(debug_time=1_000)
LATER = r.RequestHead(debug_time=6_000)


async def test_a_first_debug_clock_stops_the_wall_clock():
    """Deadlines that are long past on the wall clock wait for a tick, without debug.start."""
    runtime = SystemRuntime()
    engine = Engine(MemoryStore(runtime), runtime, EngineConfig(debug=True))
    await engine.start()
    try:
        create = r.PromiseCreate("p", 5_000, tags={"resonate:external": "true"})
        assert (await engine.submit(create, SOON)).ok
        # A repair of everything that is due by the wall clock would settle it here.
        engine._background.expect(0)
        assert (await engine.submit(r.PromiseGet("other"))).status == 404
        seen = (await engine.submit(r.PromiseGet("p"), SOON)).data
        assert isinstance(seen, PromiseResult)
        assert seen.promise.state is PromiseState.PENDING
        assert (await engine.submit(r.DebugTick(6_000), LATER)).data == []
        seen = (await engine.submit(r.PromiseGet("p"), LATER)).data
        assert isinstance(seen, PromiseResult)
        assert seen.promise.state is PromiseState.REJECTED_TIMEDOUT
    finally:
        await engine.stop()
