"""From a call to the request that starts it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, TypedDict

from kept.errors import InvalidArgumentsError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.runtime import Runtime
from kept.sdk import checks, payload
from kept.sdk.audit import Audit
from kept.sdk.checks import Span
from kept.sdk.duplicates import Debounce, Duplicates, Singleton, SingletonMode
from kept.sdk.functions import Function
from kept.sdk.options import Exhausted, JobOptions
from kept.sdk.retry import Retry
from kept.sdk.services import Services, Target


class Start(NamedTuple):
    """What one start says besides its arguments. `delay` and `timeout` are timedeltas or seconds."""

    id: str | None = None
    timeout: Span | None = None
    delay: Span | None = None
    at: datetime | None = None
    priority: int | None = None
    lane: str | None = None
    queue: str | None = None
    retry: Retry | None = None
    exhausted: Exhausted | None = None
    dedupe: str | None = None
    dedupe_window: Span | None = None
    debounce: Debounce | None = None
    singleton: SingletonMode | Singleton | None = None
    audit: Audit | None = None

    @property
    def job(self) -> JobOptions:
        """What it says of how the job waits and is tried."""
        return JobOptions(self.queue, self.priority, self.lane, self.retry, self.exhausted)

    @property
    def duplicates(self) -> Duplicates:
        """What it says of duplicates."""
        return Duplicates(self.dedupe, self.dedupe_window, self.debounce, self.singleton)


class StartOptions(TypedDict, total=False):
    """The same, as keywords."""

    id: str | None
    timeout: Span | None
    delay: Span | None
    at: datetime | None
    priority: int | None
    lane: str | None
    queue: str | None
    retry: Retry | None
    exhausted: Exhausted | None
    dedupe: str | None
    dedupe_window: Span | None
    debounce: Debounce | None
    singleton: SingletonMode | Singleton | None
    audit: Audit | None


def start_of(options: StartOptions) -> Start:
    """What keywords say. Raises `TypeError` for one that there is not, as a call does."""
    for name in options:
        if name not in Start._fields:
            raise TypeError(f"there is no option {name!r}; there are {', '.join(Start._fields)}")
    return Start(**options)


def taken_start(
    function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Start:
    """The options among the keywords of a start, which then are the function's alone.

    Raises `InvalidArgumentsError` for one that may be meant for the function.
    """
    options: dict[str, Any] = {}
    for name in [name for name in kwargs if name in Start._fields]:
        if function.takes(name, len(args)):
            raise InvalidArgumentsError(
                f"{name}: is an option of a start and a parameter of {function.name} as well; "
                "give the parameter by position"
            )
        options[name] = kwargs.pop(name)
    return Start(**options)


def create_request(
    runtime: Runtime,
    target: Target,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    start: Start,
) -> r.PromiseCreate:
    """The create of a root promise that calls `target`. Raises `InvalidArgumentsError`."""
    if start.id is not None and not isinstance(start.id, str):
        raise InvalidArgumentsError(f"id: must be a str, not {type(start.id).__name__}")
    now = runtime.now_ms()
    deadline = NEVER_MS if target.function is None else target.function.deadline_at(now)
    if start.timeout is not None:
        deadline = min(now + checks.milliseconds("timeout", start.timeout), MAX_INTEGER - 1)
    param = payload.encode_arguments(args, kwargs, Services.root_headers)
    said = start.duplicates
    own = None if target.function is None else target.function.singleton
    if said.singleton is None and own is not None:
        said = said._replace(singleton=own)
    tags = {
        **target.with_options(start.job).all_tags,
        **said.tags(param, now),
        **_delay_tags(start, now, deadline),
        **_audit_tags(start.audit),
    }
    id = runtime.entropy(16).hex() if start.id is None else start.id
    return r.PromiseCreate(id, deadline, param, tags)


def named_arguments(args: Any) -> dict[str, Any]:
    """Arguments by name, as they are given where there is no call. Raises `InvalidArgumentsError`."""
    if args is None:
        return {}
    if not isinstance(args, dict) or not all(isinstance(name, str) for name in args):
        raise InvalidArgumentsError(f"args: must be a dict of arguments by name, not {args!r}")
    return args


def _audit_tags(audit: Any) -> dict[str, str]:
    if audit is None:
        return {}
    if not isinstance(audit, Audit):
        raise InvalidArgumentsError(f"audit: must be a kept.Audit(…), not {audit!r}")
    return audit.tags()


def _delay_tags(start: Start, now: int, deadline: int) -> dict[str, str]:
    """When the work may begin; nothing for what is past."""
    if start.delay is None and start.at is None:
        return {}
    if start.delay is not None and start.at is not None:
        raise InvalidArgumentsError("delay: cannot go with at, which says when by itself")
    name = "at" if start.delay is None else "delay"
    if start.debounce is not None:
        raise InvalidArgumentsError(f"{name}: cannot go with debounce, which has its own delay")
    if start.delay is None:
        due_at = checks.instant("at", start.at)
    else:
        due_at = min(now + checks.milliseconds("delay", start.delay), MAX_INTEGER - 2)
    if due_at >= deadline:
        raise InvalidArgumentsError(
            f"{name}: the work would begin only when its timeout of {start.timeout} is over"
        )
    return {tag.DELAY: str(due_at)} if due_at > now else {}


def is_work_of(owner: str | None, reference: str) -> bool:
    """Whether a promise that names its function as `owner` is work of `reference`: another version
    of the function is the same work, begun before a deployment."""
    return owner is not None and _name_of(owner) == _name_of(reference)


def _name_of(reference: str) -> str:
    return reference.rpartition("@")[0] or reference
