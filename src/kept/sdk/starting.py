"""From a call to the request that starts it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kept.errors import InvalidArgumentsError
from kept.protocol import requests as r
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.runtime import Runtime
from kept.sdk import payload
from kept.sdk.audit import Audit
from kept.sdk.duplicates import Duplicates
from kept.sdk.services import Services, Target


def create_request(
    runtime: Runtime,
    target: Target,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    id: str | None,
    timeout: timedelta | float | None,
    said: Duplicates,
    audit: Audit | None,
) -> r.PromiseCreate:
    """The create of a root promise that calls `target`. Raises `InvalidArgumentsError`."""
    if id is not None and not isinstance(id, str):
        raise InvalidArgumentsError(f"id: must be a str, not {type(id).__name__}")
    deadline = NEVER_MS
    if timeout is not None:
        span_ms = int(payload.as_seconds(timeout) * 1_000)
        deadline = min(runtime.now_ms() + span_ms, MAX_INTEGER - 1)
    param = payload.encode_arguments(args, kwargs, Services.root_headers)
    if said.singleton is None and target.function is not None:
        said = said._replace(singleton=target.function.singleton)
    return r.PromiseCreate(
        runtime.entropy(16).hex() if id is None else id,
        deadline,
        param,
        {
            **target.all_tags,
            **said.tags(param, runtime.now_ms()),
            **({} if audit is None else audit.tags()),
        },
    )


def is_work_of(owner: str | None, reference: str) -> bool:
    """Whether a promise that names its function as `owner` is work of `reference`: another version
    of the function is the same work, begun before a deployment."""
    return owner is not None and _name_of(owner) == _name_of(reference)


def _name_of(reference: str) -> str:
    return reference.rpartition("@")[0] or reference
