"""How a start says its job waits and is tried: from Python to tags, and what becomes of it there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import kept
from kept.client.connection import call
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseRecord
from kept.protocol.responses import PromiseResult


async def stored(app: kept.App, id: str) -> PromiseRecord:
    found = (await call(app.connection, r.PromiseGet(id))).data
    assert isinstance(found, PromiseResult)
    return found.promise


async def test_everything_reaches_the_promise() -> None:
    """As the tags of the protocol, by function and by name alike."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def job(number: int) -> None: ...

    options: dict[str, Any] = {
        "delay": timedelta(hours=1),
        "timeout": 7_200,
        "queue": "bulk",
        "priority": 9,
        "lane": "customer-7",
        "retry": kept.Exponential(attempts=3, base=2, limit=60),
        "exhausted": "halt",
        "dedupe": "k",
        "dedupe_window": 60,
        "audit": kept.Audit(route="test"),
    }
    async with app:
        before = app.runtime.now_ms()
        first = await stored(app, (await app.start(job, 1, **options)).id)
        options["dedupe"] = "l"
        named = await app.enqueue("elsewhere@2", args={"number": 1}, **options)
        second = await stored(app, named.id)
        after = app.runtime.now_ms()
    for promise in (first, second):
        tags = dict(promise.tags)
        due_at = int(tags.pop("resonate:delay"))
        assert before + 3_600_000 <= due_at <= after + 3_600_000
        assert before + 7_200_000 <= promise.timeout_at <= after + 7_200_000
        assert tags.pop("kept:fingerprint")
        assert tags.pop("kept:function") in ("job@1", "elsewhere@2")
        assert tags.pop("kept:dedupe") in ("k", "l")
        assert tags == {
            "resonate:target": "queue://bulk",
            "kept:priority": "9",
            "kept:lane": "customer-7",
            "kept:attempts": "3",
            "kept:backoff": "exponential:2000:60000",
            "kept:exhausted": "halt",
            "kept:dedupe-window": "60000",
            "kept:audit-route": "test",
        }


@pytest.mark.parametrize(
    ("retry", "backoff", "attempts"),
    [
        (kept.Exponential(), "exponential:500:60000", None),
        (kept.Exponential(base=1, limit=900, jitter=True), "full_jitter:1000:900000", None),
        (kept.Linear(step=0.25, attempts=7), "linear:250:60000", "7"),
        (kept.Constant(delay=0, attempts=1_000), "fixed:0", "1000"),
        (kept.Never(), "fixed:0", "1"),
    ],
)
async def test_policies_that_the_engine_keeps(
    retry: kept.Retry, backoff: str, attempts: str | None
) -> None:
    """They take the place of the function's own limit, also where they have none."""
    app = kept.App("memory://", worker=False)

    @app.function(retry=kept.Constant(attempts=2))
    async def job() -> None: ...

    async with app:
        tags = (await stored(app, (await app.start(job, retry=retry)).id)).tags
        assert (tags["kept:backoff"], tags.get("kept:attempts")) == (backoff, attempts)
        assert (await stored(app, (await app.start(job)).id)).tags["kept:attempts"] == "12"


async def test_a_function_says_how_its_jobs_wait() -> None:
    """A start may say otherwise, and so may one use of the function; each field for itself."""
    app = kept.App("memory://", worker=False)

    @app.function(queue="mail", priority=2, lane="news", exhausted="halt")
    async def job() -> None: ...

    def said(promise: PromiseRecord) -> list[str | None]:
        names = ("resonate:target", "kept:priority", "kept:lane", "kept:exhausted")
        return [promise.tags.get(name) for name in names]

    async with app:
        own = await stored(app, (await app.start(job)).id)
        assert said(own) == ["queue://mail", "2", "news", "halt"]
        other = await stored(app, (await app.start(job, priority=0, queue="bulk")).id)
        assert said(other) == ["queue://bulk", "0", "news", "halt"]
        urgent = job.options(priority=9, exhausted="reject")
        [many] = await app.start_many(urgent, [()])
        assert said(await stored(app, many.id)) == ["queue://mail", "9", "news", "reject"]
        assert said(await stored(app, (await app.start(job)).id)) == said(own)


async def test_a_call_of_durable_code_has_options_too() -> None:
    """`ctx.call(function.options(…))`, in a queue of its own."""
    app = kept.App("memory://")

    @app.function(queue="bulk")
    async def part(number: int) -> int:
        return number

    @app.function
    async def whole(ctx: kept.Context) -> int:
        urgent = part.options(priority=7, retry=kept.Constant(attempts=2))
        return await ctx.call(urgent, 1) + await ctx.call(part, 2)

    async with app, asyncio.timeout(20):
        assert await app.run(whole, id="w") == 3
        assert (await stored(app, "w.1")).tags["kept:priority"] == "7"
        assert (await stored(app, "w.1")).tags["kept:backoff"] == "fixed:1000"
        assert "kept:priority" not in (await stored(app, "w.2")).tags


async def test_a_call_has_a_deadline() -> None:
    """Its promise times out, which the caller sees; a start's own timeout counts more."""
    app = kept.App("memory://")

    @app.function
    async def patient(ctx: kept.Context) -> object:
        return await ctx.promise("never")

    @app.function
    async def caller(ctx: kept.Context) -> str:
        try:
            await ctx.call(patient.options(timeout=0.05))
        except kept.PromiseTimedOutError:
            return "in time"
        return "?"

    @app.function
    async def wrong(ctx: kept.Context) -> None:
        await ctx.run(plain.options(timeout=1))

    @app.function
    async def plain() -> None: ...

    async with app, asyncio.timeout(20):
        assert await app.run(caller) == "in time"
        with pytest.raises(kept.PromiseTimedOutError):
            await app.run(patient.options(timeout=0.05))
        long = await app.start(patient.options(timeout=0.05), timeout=3600)
        record = await stored(app, long.id)
        assert record.timeout_at - record.created_at > 3_590_000
        with pytest.raises(kept.PromiseRejectedError, match=r"asyncio\.timeout"):
            await app.run(wrong)
    with pytest.raises(kept.InvalidArgumentsError, match="timeout"):
        plain.options(timeout=-1)


async def test_attempts_are_limited_by_number() -> None:
    """By the policy that is there, else by kept's usual one; one of the user's own has its own."""
    app = kept.App("memory://")

    @app.function(retry=kept.Constant(delay=2))
    async def constant() -> None: ...

    @app.function
    async def never() -> None: ...

    class Mine(kept.Retry):
        attempts, retry_on, give_up_on = 3, (Exception,), ()

        def wait(self, failures: int) -> float:
            return 0.0

    @app.function(retry=Mine())
    async def mine() -> None: ...

    async with app:
        for function, backoff in ((constant, "fixed:2000"), (never, "exponential:500:60000")):
            started = await app.start(function.options(attempts=4))
            tags = (await stored(app, started.id)).tags
            assert (tags["kept:attempts"], tags["kept:backoff"]) == ("4", backoff)
    with pytest.raises(kept.ConfigurationError, match="attempts"):
        mine.options(attempts=4)


async def test_a_worker_takes_work_from_more_queues() -> None:
    """Those that its functions name, and those that the app names."""
    app = kept.App("memory://", queues=["bulk", "slow"])

    @app.function(queue="mail")
    async def job() -> str:
        return "done"

    async with app, asyncio.timeout(20):
        for queue in ("mail", "default", "bulk", "slow"):
            assert await app.run(job, queue=queue) == "done"
    with pytest.raises(kept.InvalidArgumentsError, match="queue: must be a name"):
        kept.App("memory://", queues=["a b"])
    with pytest.raises(kept.ConfigurationError, match="must be several names"):
        kept.App("memory://", queues="bulk")


async def test_when_and_in_which_order() -> None:
    """Higher priorities first; what is delayed waits; an instant that is past is no delay."""
    app = kept.App("memory://", concurrency=1)
    ran: list[str] = []
    go_on = asyncio.Event()

    @app.function
    async def job(name: str) -> None:
        if name == "first":
            await go_on.wait()
        ran.append(name)

    async with app, asyncio.timeout(20):
        first = await app.start(job, "first")
        later = await app.start(job, "later", delay=timedelta(milliseconds=300))
        handles = [await app.start(job, str(n), priority=n) for n in (1, 9, 5)]
        past = await app.start(job, "past", at=datetime(2020, 1, 1, tzinfo=UTC))
        assert "resonate:delay" not in (await stored(app, past.id)).tags
        explained = await later.explain()
        assert "later" not in ran, explained
        go_on.set()
        for handle in (first, *handles, past, later):
            await handle
    assert ran[0] == "first"
    assert [name for name in ran if name.isdigit()] == ["9", "5", "1"]
    assert ran[-1] == "later"


async def test_a_start_says_how_often_its_job_is_tried() -> None:
    """More often, or less often, than the function by itself."""
    app = kept.App("memory://")
    tries: list[str] = []

    @app.function(retry=kept.Constant(attempts=3, delay=0))
    async def job(name: str) -> None:
        tries.append(name)
        raise ValueError("no")

    async with app, asyncio.timeout(20):
        for name, retry in (
            ("own", None),
            ("more", kept.Constant(attempts=5, delay=0.01)),
            ("once", kept.Never()),
        ):
            with pytest.raises(kept.PromiseRejectedError, match="ValueError: no"):
                await app.run(job, name, id=name, retry=retry)
        assert (await app.dead.get("more")).failures == 5
    assert [tries.count(name) for name in ("own", "more", "once")] == [3, 5, 1]


async def test_who_waits_for_halted_work_goes_on_waiting() -> None:
    """`exhausted="halt"`, until it is replayed."""
    app = kept.App("memory://")
    works = False

    @app.function
    async def job() -> str:
        if not works:
            raise ValueError("not yet")
        return "done"

    async with app, asyncio.timeout(20):
        handle = await app.start(job, id="j", exhausted="halt")
        while [letter async for letter in app.dead.list()] == []:
            await app.runtime.sleep(0.01)
        assert not await handle.done()
        works = True
        await app.dead.replay("j")
        assert await handle == "done"


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"delay": -1}, "delay: must be|delay: a duration must be 0 or more, not -1"),
        ({"delay": "5"}, "delay: must be a timedelta or a number of seconds, not '5'"),
        ({"delay": float("nan")}, "delay: .*not nan"),
        ({"delay": 1e300}, "delay: .* is too long"),
        ({"delay": True}, "delay: .*not True"),
        ({"delay": 5, "timeout": 5}, "delay: the work would begin only when its timeout"),
        ({"delay": 5, "at": NOW}, "delay: cannot go with at"),
        ({"delay": 5, "debounce": kept.Debounce("k", 1)}, "delay: cannot go with debounce"),
        ({"at": 5}, "at: must be a datetime, not 5"),
        ({"at": datetime(2030, 1, 1)}, "at: 2030-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
        ({"at": NOW + timedelta(1), "timeout": 5}, "at: the work would begin"),
        ({"timeout": -1}, "timeout: "),
        ({"timeout": "soon"}, "timeout: must be a timedelta"),
        ({"priority": 10}, "priority: must be a whole number from 0 to 9, not 10"),
        ({"priority": -1}, "priority: "),
        ({"priority": "9"}, "priority: .*not '9'"),
        ({"priority": True}, "priority: .*not True"),
        ({"priority": 1.0}, "priority: .*not 1.0"),
        ({"lane": ""}, "lane: must be a text that is not empty"),
        ({"lane": 7}, "lane: .*not 7"),
        ({"lane": "x" * 1_025}, "lane: is 1025 bytes long, the limit is 1024"),
        ({"lane": "\ud800"}, "lane: is not valid Unicode"),
        ({"queue": "a b"}, "queue: must be a name without blanks"),
        ({"queue": ""}, "queue: "),
        ({"queue": "x" * 257}, "queue: is 257 bytes long, the limit is 256"),
        ({"queue": "\ud800"}, "queue: is not valid Unicode"),
        ({"retry": 5}, "retry: must be one of kept's own policies, such as"),
        ({"retry": kept.Exponential(factor=3)}, "retry: factor must be 2 here"),
        ({"retry": kept.Constant(give_up_on=(KeyError,))}, "retry: retry_on and give_up_on"),
        ({"retry": kept.Constant(attempts=1_001)}, "retry: attempts: .* from 1 to 1000, not 1001"),
        ({"exhausted": "stop"}, "exhausted: must be one of reject, halt, not 'stop'"),
        ({"id": 7}, "id: must be a str"),
    ],
)
async def test_what_makes_no_sense_is_refused_at_the_call(
    options: dict[str, Any], error: str
) -> None:
    """With the name of the option and what it may be; nothing is sent."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def job() -> None: ...

    async with app:
        with pytest.raises(kept.InvalidArgumentsError, match=error):
            await app.start(job, **options)
        with pytest.raises(kept.InvalidArgumentsError, match=error):
            await app.enqueue("job", **options)


async def test_mistakes_of_declarations_are_told_there() -> None:
    """Where the function is declared or used; durable code has no retries to say anything of."""
    app = kept.App("memory://", worker=False)
    for options in ({"priority": 11}, {"queue": "a b"}, {"lane": ""}, {"exhausted": "stop"}):
        with pytest.raises(kept.InvalidArgumentsError, match=next(iter(options))):
            app.function(**options)(lambda: None)  # type: ignore[call-overload]

    @app.function
    async def flow(ctx: kept.Context) -> None: ...

    with pytest.raises(kept.InvalidArgumentsError, match="priority"):
        flow.options(priority=11)
    with pytest.raises(kept.InvalidArgumentsError, match="durable code is replayed"):
        flow.options(retry=kept.Never())
    async with app:
        with pytest.raises(TypeError, match="there is no option 'prio'; there are id, timeout"):
            await app.enqueue("flow", prio=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: kept.Exponential(base=-1), "base: must be 0 or more, not -1"),
        (lambda: kept.Exponential(limit=float("nan")), "limit: must be 0 or more, not nan"),
        (lambda: kept.Linear(step=-1), "step: must be"),
        (lambda: kept.Constant(delay=-1), "delay: must be"),
        (lambda: kept.Constant(attempts=0), "attempts: at least the first try"),
    ],
)
def test_policies_that_make_no_sense(make: Any, error: str) -> None:
    """Are refused where they are made."""
    with pytest.raises(ValueError, match=error):
        make()


async def test_other_mistakes_are_told_as_well() -> None:
    """Things of the wrong kind: a policy that is none, arguments by position, no audit, no number."""
    app = kept.App("memory://", worker=False)
    for retry in (5, kept.Never):
        with pytest.raises(kept.ConfigurationError, match="retry: must be a policy such as"):
            app.function(retry=retry)(lambda: None)  # type: ignore[arg-type]

    @app.function
    async def job() -> None: ...

    async with app:
        for args in ([1], {1: 2}):
            with pytest.raises(kept.InvalidArgumentsError, match="args: must be a dict"):
                await app.enqueue("elsewhere", args=args)  # type: ignore[arg-type]
        with pytest.raises(kept.InvalidArgumentsError, match=r"audit: must be a kept\.Audit"):
            await app.start(job, audit={"event_id": "x"})  # type: ignore[call-overload]
        handle = await app.start(job)
        for timeout in ("5", -1):
            with pytest.raises(kept.InvalidArgumentsError, match=r"timeout: .* not"):
                await handle.result(timeout)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await handle.result(float("inf"))


async def test_a_parameter_of_the_name_of_an_option_is_given_by_position() -> None:
    """By keyword it could mean either, and that is said."""
    app = kept.App("memory://")

    @app.function
    async def job(queue: str, priority: int = 3, *, delay: int = 0) -> list[Any]:
        return [queue, priority, delay]

    async with app, asyncio.timeout(20):
        with pytest.raises(kept.InvalidArgumentsError, match=r"priority: is an option .* of job"):
            await app.start(job, "q", priority=1)
        with pytest.raises(kept.InvalidArgumentsError, match="delay: is an option"):
            await app.start(job, "q", 1, delay=1)
        handle = await app.start(job, "q", 1, priority=9)
        assert await handle == ["q", 1, 0]
        assert (await stored(app, handle.id)).tags["kept:priority"] == "9"
        named = await app.enqueue("job", args={"queue": "q", "delay": 5}, priority=1)
        assert await named == ["q", 3, 5]
        assert (await stored(app, named.id)).timeout_at == NEVER_MS
