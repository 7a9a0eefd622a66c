"""Scripts about promises: settled once, awaited, told of, found."""

from __future__ import annotations

import asyncio

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseState, TaskState, Value
from kept.protocol.responses import PreloadResult, PromisePage, PromiseResult, TaskPage
from kept.sim.scripts.leases import record
from kept.sim.scripts.script import Script

_NOBODY = "poll://uni@nobody"
# More than one commit drains.
CROWD = 1_005
SMALL_CROWD = 5
SHARE_OF_CROWDS = 0.1
_STATES = (PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.REJECTED_CANCELED)


async def life(s: Script) -> None:
    """Created once, settled once; whoever comes later gets what is stored."""
    create = s.external("plain ü☃")
    create.param = Value(headers={"a": "b"}, data="\u2028 text")
    await s.ask(r.PromiseGet(create.id), 404)
    await s.ask(r.PromiseSettle(create.id, PromiseState.RESOLVED), 404)
    await s.ask(r.PromiseWait(create.id, 1_000), 404)
    born = await s.data(create, PromiseResult)
    other = r.PromiseCreate(create.id, create.timeout_at + 5, Value(data="other"))
    s.same("created again", await s.data(other, PromiseResult), born)
    s.same("waited", await s.data(r.PromiseWait(create.id, 0), PromiseResult), born)
    wait = s.runtime.spawn(s.settled(create.id), "wait")
    state = s.random.choice(_STATES)
    value = Value(headers={"h": "v"}, data="value")
    settled = await s.data(r.PromiseSettle(create.id, state, value), PromiseResult)
    s.same("settled", (settled.promise.state, settled.promise.value), (state, value))
    s.same("kept", (settled.promise.param, settled.promise.created_at),
           (create.param, born.promise.created_at))  # fmt: skip
    for again in _STATES:
        found = await s.data(r.PromiseSettle(create.id, again), PromiseResult)
        s.same("settled again", found, settled)
    s.same("created after all", await s.data(other, PromiseResult), settled)
    s.same("waited", await wait, settled)
    await s.ask(r.TaskGet(create.id), 404)


async def deadlines(s: Script) -> None:
    """A deadline settles as it says, whoever looks, and nothing is settled after it."""
    at = s.runtime.now_ms() + 600
    timer = r.PromiseCreate(s.id("timer"), at, tags={tag.TIMER: "true"})
    plain = r.PromiseCreate(s.id("internal"), at)
    awaited = r.PromiseCreate(s.id("external"), at, tags={tag.EXTERNAL: "true"})
    work = s.job("work")
    work.timeout_at = at
    for create in (timer, plain, awaited, work):
        found = await s.data(create, PromiseResult)
        if s.runtime.now_ms() >= at:
            return
        s.same("born", found.promise.state, PromiseState.PENDING)
    ids = [each.id for each in (timer, plain, awaited, work)]
    results = await asyncio.gather(*(s.settled(id) for id in ids))
    now = s.runtime.now_ms()
    if now < at:
        s.fail(f"deadlines of {at} struck at {now}")
    for index, each in enumerate(results):
        expected = PromiseState.RESOLVED if index == 0 else PromiseState.REJECTED_TIMEDOUT
        promise = each.promise
        s.same(promise.id, (promise.state, promise.settled_at, promise.value),
               (expected, at, Value()))  # fmt: skip
    late = await s.data(r.PromiseSettle(awaited.id, PromiseState.RESOLVED), PromiseResult)
    s.same("settled late", late.promise, results[2].promise)
    await s.task_is(work.id, state=TaskState.FULFILLED, version=0)
    await s.nothing_to_claim()
    born = (await s.data(r.PromiseCreate(s.id("dead"), at), PromiseResult)).promise
    s.same("born dead", (born.state, born.created_at, born.settled_at),
           (PromiseState.REJECTED_TIMEDOUT, at, at))  # fmt: skip


async def edges(s: Script) -> None:
    """Who may be awaited, by whom, and who is woken."""
    work, one, inside = s.job("awaiter"), s.external("awaited"), s.external("inside")
    inside.tags = {}
    for create in (work, one, inside):
        await s.ask(create)
    callback = r.PromiseRegisterCallback
    await s.ask(callback(one.id, one.id), 400)
    await s.ask(callback(s.id("nobody"), work.id), 404)
    await s.ask(callback(one.id, s.id("nobody")), 422)
    await s.ask(callback(one.id, inside.id), 422)
    await s.ask(callback(inside.id, work.id), 422)
    listen = r.PromiseRegisterListener
    await s.ask(listen(one.id, "nowhere"), 400)
    await s.ask(listen(one.id, "queue://x"), 400)
    await s.ask(listen(s.id("nobody"), f"{_NOBODY}/x"), 404)
    await s.ask(listen(inside.id, f"{_NOBODY}/x"), 422)
    for _ in range(2):
        await s.ask(callback(one.id, work.id))
        await s.ask(listen(one.id, f"{_NOBODY}/x"))
    await s.ask(r.PromiseSettle(one.id, PromiseState.RESOLVED))
    await s.task_is(work.id, state=TaskState.PENDING, resumes=1, version=0)
    found = await s.data(callback(one.id, work.id), PromiseResult)
    s.same("too late", found.promise.state, PromiseState.RESOLVED)
    await s.task_is(work.id, resumes=1)


async def crowd(s: Script) -> None:
    """More listeners and awaiters than one commit drains: all are told. Mostly more than the smallest
    bound of some worlds; more than the usual one costs as much as a hundred other scripts."""
    count = CROWD if s.random.random() < SHARE_OF_CROWDS else SMALL_CROWD
    one = s.external("star")
    await s.ask(one)
    listeners = [
        r.PromiseRegisterListener(one.id, f"{_NOBODY}/{number}") for number in range(count)
    ]
    await asyncio.gather(*(s.ask(each) for each in listeners))
    work = s.job("fan")
    await s.ask(work)
    await s.ask(r.PromiseRegisterCallback(one.id, work.id))
    await s.ask(r.PromiseSettle(one.id, PromiseState.RESOLVED))
    await s.task_is(work.id, resumes=1)


async def pages(s: Script) -> None:
    """Searches and pages find what is there, once, in order."""
    label = {"label": s.key}
    count = s.random.randint(3, 9)
    ids = sorted(s.id(f"found{number}") for number in range(count))
    for number, id in enumerate(ids):
        tags = {**label, "odd": str(number % 2), tag.EXTERNAL: "true"}
        await s.ask(r.PromiseCreate(id, s.deadline(), tags=tags))
    await s.ask(r.PromiseSettle(ids[1], PromiseState.RESOLVED))
    pending, resolved = PromiseState.PENDING, PromiseState.RESOLVED
    for state, tags, expected in (
        (None, label, ids),
        (pending, label, [ids[0], *ids[2:]]),
        (resolved, label, [ids[1]]),
        (None, {**label, "odd": "0"}, ids[::2]),
        (None, {**label, "odd": "2"}, []),
    ):
        seen: list[str] = []
        cursor = None
        while True:
            page = await s.data(r.PromiseSearch(state, tags, 2, cursor), PromisePage)
            s.same("rows", len(page.promises) <= 2, expected=True)
            seen += [promise.id for promise in page.promises]
            cursor = page.cursor
            if cursor is None:
                break
        s.same(f"found by {state} {tags}", seen, expected)
    await _children(s)
    halted = s.job("halted")
    await s.ask(halted)
    await s.ask(r.TaskHalt(halted.id))
    tasks = await s.data(r.TaskSearch(TaskState.HALTED, limit=1_000), TaskPage)
    s.same("halted tasks", {task.state for task in tasks.tasks}, {TaskState.HALTED})
    if tasks.cursor is None:
        s.same("is found", halted.id in [task.id for task in tasks.tasks], expected=True)


async def _children(s: Script) -> None:
    work = s.job("parent")
    await s.ask(work)
    await s.claimed(work.id)
    released: list[str] = []
    for number in range(5):
        name = f"{9 - number}"
        await s.ask(record(s, work.id, 1, name, released[-1:] if number % 2 else []))
        released.append(f"{work.id}.{name}")
    order = [f"{work.id}.9", f"{work.id}.7"]
    order += [f"{work.id}.{name}" for name in ("5", "6", "8")]
    seen: list[str] = []
    cursor = None
    while True:
        page = await s.data(r.PromiseChildren(work.id, cursor, 2), PreloadResult)
        seen += [promise.id for promise in page.preload]
        cursor = page.more
        if cursor is None:
            break
    s.same("children", seen, order)
