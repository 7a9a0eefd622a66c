"""A script about what running work says of itself (protocol B8)."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol.responses import PromisePage, PromiseResult
from kept.sim.scripts.script import LEASE_MS, Script


async def said(s: Script) -> None:
    """What is named is set or taken back, the rest stays; it is read and found as it is now."""
    first, second = f"first-{s.key}", f"second-{s.key}"
    create = s.job("job")
    await s.ask(r.TaskCreate(s.pid, LEASE_MS, r.CreateAction(create)))
    await s.ask(r.TaskAnnotate(create.id, 1, {"a": first, "b": first}, 0.5))
    await _is_said(s, create.id, {"a": first, "b": first}, 0.5)
    await s.ask(r.TaskAnnotate(create.id, 1, {"a": second, "b": None}, None))
    await _is_said(s, create.id, {"a": second}, 0.5)
    for name, value, ids in (("a", second, [create.id]), ("a", first, []), ("b", first, [])):
        search = r.PromiseSearch(attributes={name: value})
        page = await s.data(search, PromisePage)
        s.same(f"found by {name}={value}", [each.id for each in page.promises], ids)
    await s.ask(r.TaskAnnotate(create.id, 2, {"a": first}, None), 409)
    await _is_said(s, create.id, {"a": second}, 0.5)


async def _is_said(s: Script, id: str, attributes: dict[str, str], progress: float) -> None:
    result = await s.data(r.PromiseGet(id, attributes=True), PromiseResult)
    s.same("attributes", result.attributes, attributes)
    s.same("progress", result.progress, progress)
