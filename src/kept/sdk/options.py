"""How a job waits in its queue and is tried: what a function, or one use of it, says (protocol B2)."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypeAlias

from kept.errors import InvalidArgumentsError
from kept.protocol import tags as tag
from kept.protocol.addresses import QUEUE_PREFIX, is_target
from kept.protocol.limits import MAX_ATTEMPTS, MAX_PRIORITY, MAX_QUEUE_NAME_BYTES
from kept.sdk import checks
from kept.sdk.retry import Constant, Exponential, Linear, Never, Retry

Exhausted: TypeAlias = Literal["reject", "halt"]

_ANY_ERROR: Final = ((Exception,), ())


class JobOptions(NamedTuple):
    """Each is None where nothing is said. `retry` is one that the engine keeps by itself."""

    queue: str | None = None
    priority: int | None = None
    lane: str | None = None
    retry: Retry | None = None
    exhausted: Exhausted | None = None

    def over(self, other: JobOptions) -> JobOptions:
        """These, and what the other says of what these leave open."""
        said = {name: value for name, value in self._asdict().items() if value is not None}
        return other._replace(**said)

    def tags(self, *, durable: bool) -> dict[str, str]:
        """The tags that say so, but for the queue. Raises `InvalidArgumentsError`."""
        tags: dict[str, str] = {}
        if self.queue is not None:
            checked_queue(self.queue)
        if self.priority is not None:
            tags[tag.PRIORITY] = str(checks.whole("priority", self.priority, 0, MAX_PRIORITY))
        if self.lane is not None:
            tags[tag.LANE] = checks.name("lane", self.lane)
        if self.exhausted is not None:
            tags[tag.EXHAUSTED] = checks.choice("exhausted", self.exhausted, Exhausted)
        if self.retry is not None:
            if durable:
                raise InvalidArgumentsError(
                    "retry: durable code is replayed, not tried again; its steps have policies"
                )
            tags |= retry_tags(self.retry)
        return tags


NO_OPTIONS: Final = JobOptions()


def checked_queue(name: Any) -> str:
    """The name of a queue. Raises `InvalidArgumentsError`."""
    queue = checks.name("queue", name, MAX_QUEUE_NAME_BYTES)
    if not is_target(f"{QUEUE_PREFIX}{queue}", frozenset()):
        raise InvalidArgumentsError(f"queue: must be a name without blanks, not {name!r}")
    return queue


def retry_tags(retry: Any) -> dict[str, str]:
    """A policy as the engine keeps it, which counts and waits by itself then. Raises
    `InvalidArgumentsError` for one that only Python code can keep."""
    if not isinstance(retry, Exponential | Linear | Constant | Never):
        raise InvalidArgumentsError(
            f"retry: must be one of kept's own policies, such as kept.Exponential(attempts=5), not "
            f"{retry!r}; others are for @app.function"
        )
    if (retry.retry_on, retry.give_up_on) != _ANY_ERROR:
        raise InvalidArgumentsError("retry: retry_on and give_up_on are for @app.function")
    tags = {tag.BACKOFF: _backoff(retry)}
    if retry.attempts is not None:
        tags[tag.ATTEMPTS] = str(checks.whole("retry: attempts", retry.attempts, 1, MAX_ATTEMPTS))
    return tags


def _backoff(retry: Exponential | Linear | Constant | Never) -> str:
    ms = checks.milliseconds
    match retry:
        case Exponential():
            if retry.factor != 2:
                raise InvalidArgumentsError(
                    "retry: factor must be 2 here; others are for @app.function"
                )
            base, limit = ms("retry: base", retry.base), ms("retry: limit", retry.limit)
            return f"{'full_jitter' if retry.jitter else 'exponential'}:{base}:{limit}"
        case Linear():
            return f"linear:{ms('retry: step', retry.step)}:{ms('retry: limit', retry.limit)}"
        case Constant():
            return f"fixed:{ms('retry: delay', retry.delay)}"
        case Never():
            return "fixed:0"
