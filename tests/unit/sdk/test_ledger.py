"""`app.once`: one runner at a time, a result that is recorded once, and what becomes of it otherwise."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import kept
from kept.client.connection import Connection, call
from kept.protocol import requests as r
from kept.protocol.records import TaskRecord
from kept.protocol.responses import Response, TaskResult
from kept.sdk import ledger
from tests.unit.sdk.site import Site, eventually, site

CALLERS = 40


@asynccontextmanager
async def opened() -> AsyncIterator[kept.App]:
    """An app over an engine of its own; nothing in it may take long."""
    async with kept.App("memory://", worker=False) as app, asyncio.timeout(20):
        yield app


@asynccontextmanager
async def several(number: int) -> AsyncIterator[tuple[Site, list[kept.App]]]:
    """Apps on one engine, as in processes of their own."""
    async with site() as place, asyncio.timeout(20):
        yield place, [place.app(kept.App("memory://", worker=False)) for _ in range(number)]


class Effect:
    """A function that counts its runs, and fails or waits where a test says so."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.inside = 0
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.failures = 0

    async def __call__(self, idempotency_key: str) -> int:
        self.keys.append(idempotency_key)
        self.inside += 1
        assert self.inside == 1
        self.entered.set()
        try:
            await self.go_on.wait()
        finally:
            self.inside -= 1
        if len(self.keys) <= self.failures:
            raise ValueError(f"run {len(self.keys)}")
        return len(self.keys)


async def task_of(app: kept.App, id: str) -> TaskRecord:
    found = (await call(app.connection, r.TaskGet(id))).data
    assert isinstance(found, TaskResult)
    return found.task


async def free(app: kept.App, id: str) -> None:
    async def look() -> bool:
        return (await task_of(app, id)).state == "pending"

    await eventually(look)


async def test_many_at_once_run_it_once() -> None:
    """All of them get the one result, and so does who comes later; other keys are other calls."""
    async with several(4) as (_, apps):
        effect = Effect()
        effect.go_on.set()
        calls = [apps[n % 4].once("charge-42", effect) for n in range(CALLERS)]
        assert await asyncio.gather(*calls) == [1] * CALLERS
        assert await apps[0].once("charge-42", effect) == 1
        assert await apps[1].once("charge-43", effect) == 2
        assert len(set(effect.keys)) == len(effect.keys) == 2


async def test_a_result_is_as_its_annotation_says() -> None:
    """For the one who runs it as for those who read it: what was recorded, converted."""

    def total(*numbers: int) -> tuple[int, ...]:
        return numbers

    async with opened() as app:
        assert await app.once("a", total, 1, 2) == (1, 2)
        assert await app.once("a", total, 3) == (1, 2)
        assert await app.once("none", lambda: None) is None
        assert await app.once("none", lambda: 1) is None


async def test_a_failure_is_not_recorded() -> None:
    """Its caller gets it; one that waits runs it next, under the same idempotency key."""
    async with opened() as app:
        effect = Effect()
        effect.failures = 2
        first = asyncio.ensure_future(app.once("a", effect))
        await effect.entered.wait()
        second = asyncio.ensure_future(app.once("a", effect))
        effect.go_on.set()
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [str(each) for each in outcomes] == ["run 1", "run 2"]
        assert await app.once("a", effect) == 3
        assert len(set(effect.keys)) == 1


async def test_a_result_that_cannot_be_stored_is_a_failure() -> None:
    """It is told to who ran it, and the next call runs again."""
    async with opened() as app:
        with pytest.raises(TypeError, match="JSON"):
            await app.once("a", lambda: object())
        with pytest.raises(kept.BadRequestError):
            await app.once("a", lambda: "x" * 2_000_000)
        assert await app.once("a", lambda: 3) == 3


async def test_a_caller_that_is_cancelled_makes_room() -> None:
    """The function is cancelled with it, and may clean up first; then another runs it."""
    async with opened() as app:
        effect = Effect()
        first = asyncio.ensure_future(app.once("a", effect))
        await effect.entered.wait()
        second = asyncio.ensure_future(app.once("a", effect))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert effect.inside == 0
        effect.go_on.set()
        assert await second == 2
        assert len(set(effect.keys)) == 1


async def test_cancelled_while_it_waits() -> None:
    """Whoever gives up waiting changes nothing."""
    async with opened() as app:
        effect = Effect()
        first = asyncio.ensure_future(app.once("a", effect))
        await effect.entered.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await app.once("a", effect)
        effect.go_on.set()
        assert await first == 1


class Late:
    """A connection that holds back the answers to one kind of request until it is told."""

    def __init__(self, inner: Connection, kind: str) -> None:
        self._inner = inner
        self._kind = kind
        self.answered = asyncio.Event()
        self.go_on = asyncio.Event()

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        response = await self._inner.send(request, request_id=request_id)
        if request.kind == self._kind and not self.go_on.is_set():
            self.answered.set()
            await self.go_on.wait()
        return response

    async def close(self) -> None:
        await self._inner.close()


async def test_cancelled_before_it_knows_that_it_may() -> None:
    """A lease that was had without its caller is given back, and not held for a ttl."""
    async with site() as place, asyncio.timeout(20):
        late = Late(place.connection(), r.TaskAcquire.kind)
        app = place.app(kept.App("memory://", worker=False), late)
        calling = asyncio.ensure_future(app.once("a", lambda: 1))
        await late.answered.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        late.go_on.set()
        assert await app.once("a", lambda: 2) == 2


async def test_cancelled_while_it_is_recorded() -> None:
    """What has had its effect is recorded all the same."""
    async with site() as place, asyncio.timeout(20):
        late = Late(place.connection(), r.TaskFulfill.kind)
        app = place.app(kept.App("memory://", worker=False), late)
        calling = asyncio.ensure_future(app.once("a", lambda: 1))
        await late.answered.wait()
        calling.cancel()
        late.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert await app.once("a", lambda: 2) == 1


async def test_a_runner_that_is_cut_off_is_followed() -> None:
    """Once its lease has expired, by one that waits and under the same key. It stops its function
    and gets the result of the other."""
    async with site() as place, asyncio.timeout(20):
        cut = place.connection()
        lost, other = (
            place.app(kept.App("memory://", worker=False), connection)
            for connection in (cut, place.connection())
        )
        effect = Effect()
        first = asyncio.ensure_future(lost.once("a", effect, ttl=0.3))
        await effect.entered.wait()
        cut.broken.set()
        second = asyncio.ensure_future(other.once("a", effect, ttl=0.3))

        async def again() -> bool:
            return len(effect.keys) == 2

        await eventually(again)
        effect.go_on.set()
        cut.revive()
        assert await asyncio.gather(first, second) == [2, 2]
        assert len(set(effect.keys)) == 1


async def test_the_lease_is_renewed() -> None:
    """A run that takes longer than its ttl stays the only one."""
    async with opened() as app:
        effect = Effect()
        first = asyncio.ensure_future(app.once("a", effect, ttl=0.2))
        await effect.entered.wait()
        second = asyncio.ensure_future(app.once("a", effect, ttl=0.2))
        await asyncio.wait((first, second), timeout=0.7)
        effect.go_on.set()
        assert await asyncio.gather(first, second) == [1, 1]


async def test_a_thread_that_cannot_be_stopped_keeps_its_lease() -> None:
    """A cancelled caller of a plain `def` does not make room while that still runs."""
    async with opened() as app:
        entered, go_on = threading.Event(), threading.Event()

        def effect(idempotency_key: str) -> str:
            entered.set()
            go_on.wait(10)
            return idempotency_key

        calling = asyncio.ensure_future(app.once("a", effect))

        async def running() -> bool:
            return entered.is_set()

        await eventually(running)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await app.once("a", effect)
        go_on.set()


async def test_an_operator_cancels_it() -> None:
    """The runner stops its function, and everybody is told; also who comes within the window."""
    async with opened() as app:
        effect = Effect()
        first = asyncio.ensure_future(app.once("a", effect, ttl=0.3))
        await effect.entered.wait()
        second = asyncio.ensure_future(app.once("a", effect))
        await app.handle(effect.keys[0]).cancel("enough", force=True)
        for calling in (first, second, app.once("a", effect)):
            with pytest.raises(kept.PromiseCanceledError, match="enough"):
                await calling
        assert effect.inside == 0
        assert len(effect.keys) == 1


async def test_a_queue_that_lets_nothing_start() -> None:
    """An operator may pause the ledger's queue: callers wait, and do not ask without rest."""
    async with site() as place, asyncio.timeout(20):
        connection = place.connection()
        app = place.app(kept.App("memory://", worker=False), connection)
        await call(connection, r.QueuePause(ledger.LEDGER_QUEUE))
        calling = asyncio.ensure_future(app.once("a", lambda: 1))
        await asyncio.wait((calling,), timeout=0.5)
        assert not calling.done()
        assert 1 < connection.requests[r.TaskAcquire.kind] < 10
        await call(connection, r.QueueResume(ledger.LEDGER_QUEUE))
        assert await calling == 1


async def test_the_window_ends() -> None:
    """After it the next call runs it, under another idempotency key."""
    async with opened() as app:
        keys: list[str] = []

        async def effect(idempotency_key: str) -> int:
            keys.append(idempotency_key)
            return len(keys)

        async def again() -> bool:
            return await app.once("a", effect, window=0.05) == 2

        assert await app.once("a", effect, window=0.05) == 1
        await eventually(again)
        assert len(set(keys)) == 2
        assert await app.once("b", effect, window=0) == 3
        assert await app.once("b", effect, window=0) == 4


async def test_one_that_was_never_recorded_ends_with_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that was begun and given up does not hold its key for ever."""
    monkeypatch.setattr(ledger, "_UNRECORDED_MS", 1)
    async with opened() as app:
        effect = Effect()
        effect.failures = 1
        effect.go_on.set()
        with pytest.raises(ValueError, match="run 1"):
            await app.once("a", effect, window=0)

        async def again() -> bool:
            return await app.once("a", effect, window=0) > 1

        monkeypatch.undo()
        await eventually(again)
        assert len(set(effect.keys)) == 2


async def test_what_is_refused() -> None:
    """Arguments that do not fit, before anything is recorded; durable functions; empty keys."""
    async with opened() as app:

        async def workflow(ctx: kept.Context) -> None: ...

        async def effect(n: int) -> int:
            return n

        with pytest.raises(kept.InvalidArgumentsError):
            await app.once("a", effect)
        with pytest.raises(kept.ConfigurationError, match="takes a Context"):
            await app.once("a", workflow)
        with pytest.raises(kept.BadRequestError):
            await app.once("", effect, 1)
        assert await app.once("a", effect, n=5) == 5


async def test_it_is_for_steps_and_jobs_not_for_durable_code() -> None:
    """As the other guards: in a durable function it is refused, with its line."""
    app = kept.App("memory://")
    refused: list[str] = []

    @app.function
    async def step(n: int) -> int:
        return await app.once("a", lambda: n)

    @app.function
    async def workflow(ctx: kept.Context) -> int:
        try:
            await app.once("a", lambda: 0)
        except kept.NotDurableError as error:
            refused.append(str(error))
        return await ctx.run(step, 1)

    async with app, asyncio.timeout(20):
        assert await app.run(workflow) == 1
        assert await app.run(step, 2) == 1
    assert len(refused) == 1
    assert "test_ledger.py" in refused[0]
