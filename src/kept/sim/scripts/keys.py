"""Scripts about creates that are about the same thing: dedupe, debounce, singleton (protocol B4)."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseState
from kept.protocol.responses import ClaimResult
from kept.sim.scripts.script import Script

_LONG_MS = 3_600_000


def _keyed(s: Script, name: str, delay: int = 0, **tags: str) -> r.PromiseCreate:
    """A job whose tags are named without prefix, and with underscores; due at `delay` (ms)."""
    create = s.job(name, **{key.replace("_", "-"): text for key, text in tags.items()})
    if delay:
        create.tags[tag.DELAY] = str(delay)
    return create


async def _stands_for(s: Script, create: r.PromiseCreate, name: str) -> None:
    s.same(f"what stands for {create.id}", (await s.promise_of(create)).id, s.id(name))


async def _settle(s: Script, name: str) -> None:
    await s.ask(r.PromiseSettle(s.id(name), PromiseState.RESOLVED))


async def deduped(s: Script) -> None:
    """One promise for a key while it is unsettled or its window lasts, and for one content only."""
    window = str(_LONG_MS)
    await _stands_for(s, _keyed(s, "one", dedupe="k", dedupe_window=window, fingerprint="x"), "one")
    same = _keyed(s, "two", dedupe="k", dedupe_window=window, fingerprint="x")
    other = _keyed(s, "three", dedupe="k", dedupe_window=window, fingerprint="y")
    ignoring = _keyed(s, "four", dedupe="k", dedupe_mismatch="ignore", fingerprint="y")
    for settled in (False, True):
        if settled:
            await _settle(s, "one")
        await _stands_for(s, same, "one")
        await s.ask(other, 409)
        await _stands_for(s, ignoring, "one")
    await _stands_for(s, _keyed(s, "brief", dedupe="l", fingerprint="x"), "brief")
    await _stands_for(s, _keyed(s, "later", dedupe="l", fingerprint="x"), "brief")
    await _settle(s, "brief")
    await _stands_for(s, _keyed(s, "later", dedupe="l", fingerprint="x"), "later")


async def debounced(s: Script) -> None:
    """A later create puts off the one that waits, never brings it forward, and takes its place where
    it says so; not beyond the longest delay that was given."""
    now = s.runtime.now_ms()
    far, farther = now + _LONG_MS, now + 2 * _LONG_MS
    await _stands_for(s, _keyed(s, "one", debounce="k", delay=far), "one")
    await _stands_for(s, _keyed(s, "two", debounce="k", delay=farther), "one")
    await _stands_for(s, _keyed(s, "three", debounce="k"), "one")
    await s.nothing_to_claim()
    instead = _keyed(s, "four", debounce="k", debounce_mode="replace", delay=far)
    await _stands_for(s, instead, "four")
    s.same("replaced", (await s.promise(s.id("one"))).state, PromiseState.REJECTED_CANCELED)
    await _settle(s, "four")
    await _stands_for(s, _keyed(s, "five", debounce="k"), "five")
    await s.claimed(s.id("five"))
    # It has begun, so another one waits beside it.
    await _stands_for(s, _keyed(s, "six", debounce="k", delay=far), "six")
    await _stands_for(s, _keyed(s, "a", debounce="l", delay=far, debounce_max="1"), "a")
    await s.runtime.sleep(0.1)
    if s.exact:
        await s.claimed(s.id("a"), wait=20_000)


async def single(s: Script) -> None:
    """One live promise for a key: a second create is refused, answered by the first, or takes its
    place; a settled one holds no key."""
    await _stands_for(s, _keyed(s, "one", singleton="skip", singleton_key="k"), "one")
    await s.ask(_keyed(s, "two", singleton="skip", singleton_key="k"), 409)
    await _stands_for(s, _keyed(s, "three", singleton="return", singleton_key="k"), "one")
    await _stands_for(s, _keyed(s, "four", singleton="replace", singleton_key="k"), "four")
    s.same("replaced", (await s.promise(s.id("one"))).state, PromiseState.REJECTED_CANCELED)
    result = await s.data(s.claim(5), ClaimResult)
    s.same("left", [each.task.id for each in result.tasks], [s.id("four")])
    await s.ask(_keyed(s, "five", singleton="skip", singleton_key="k"), 409)
    await _settle(s, "four")
    await _stands_for(s, _keyed(s, "five", singleton="skip", singleton_key="k"), "five")
