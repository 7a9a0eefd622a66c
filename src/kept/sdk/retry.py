"""How often a failed step or job is tried again, and after which wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol

from kept.errors import ConfigurationError
from kept.sdk.verdicts import JobVerdict, RetryJob

FOREVER: Final = None
_JITTER_BYTES: Final = 4

ErrorTypes = tuple[type[BaseException], ...]


class Retry(Protocol):
    """A retry policy. `attempts` counts the first try too; None is without end."""

    @property
    def attempts(self) -> int | None: ...

    @property
    def retry_on(self) -> ErrorTypes: ...

    @property
    def give_up_on(self) -> ErrorTypes: ...

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures, 1 and up."""


@dataclass(frozen=True, kw_only=True)
class _Policy:
    _numbers: ClassVar[tuple[str, ...]] = ()
    attempts: int | None = FOREVER
    retry_on: ErrorTypes = (Exception,)
    give_up_on: ErrorTypes = ()

    def __post_init__(self) -> None:
        if self.attempts is not None and not self.attempts >= 1:
            raise ValueError("attempts: at least the first try must be allowed")
        for name in self._numbers:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: must be 0 or more, not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class Exponential(_Policy):
    """Waits `base` seconds, then `factor` times as long after each failure, at most `limit`; with
    `jitter` some random part of that, so that what failed together is not tried together."""

    _numbers: ClassVar[tuple[str, ...]] = ("base", "factor", "limit")
    base: float = 0.5
    factor: float = 2.0
    limit: float = 60.0
    jitter: bool = False

    def wait(self, failures: int) -> float:
        # A float's range ends; beyond this every base has long reached its limit.
        return min(self.base * self.factor ** min(failures - 1, 256), self.limit)


@dataclass(frozen=True, kw_only=True)
class Linear(_Policy):
    """Waits `step` seconds longer after each failure, at most `limit`."""

    _numbers: ClassVar[tuple[str, ...]] = ("step", "limit")
    step: float = 1.0
    limit: float = 60.0

    def wait(self, failures: int) -> float:
        return min(self.step * failures, self.limit)


@dataclass(frozen=True, kw_only=True)
class Constant(_Policy):
    """Waits the same `delay` in seconds after each failure."""

    _numbers: ClassVar[tuple[str, ...]] = ("delay",)
    delay: float = 1.0

    def wait(self, failures: int) -> float:
        return self.delay


@dataclass(frozen=True, kw_only=True)
class Never(_Policy):
    """One try, no more."""

    attempts: int | None = 1

    def wait(self, failures: int) -> float:
        return 0.0


def next_wait(
    retry: Retry, failures: int, error: BaseException, entropy: Callable[[int], bytes]
) -> float | None:
    """Seconds to wait before the next try after so many failures; None where there is none."""
    if not may_retry(retry, error):
        return None
    if retry.attempts is not None and failures >= retry.attempts:
        return None
    if isinstance(error, RetryJob):
        return error.delay_ms / 1_000
    wait = retry.wait(failures)
    if isinstance(retry, Exponential) and retry.jitter:
        wait *= int.from_bytes(entropy(_JITTER_BYTES)) / 256**_JITTER_BYTES
    return wait


def checked_policy(retry: Any) -> Retry:
    """A policy. Raises `ConfigurationError` for what is none, such as a class instead of one."""
    parts = ("attempts", "retry_on", "give_up_on", "wait")
    if isinstance(retry, type) or not all(hasattr(retry, part) for part in parts):
        raise ConfigurationError(
            f"retry: must be a policy such as kept.Exponential(attempts=5), not {retry!r}"
        )
    policy: Retry = retry
    return policy


def with_attempts(retry: Any, attempts: int) -> Retry:
    """The policy with so many attempts; of one that never tries again, `Exponential`. Raises
    `ConfigurationError` for a policy that is not one of kept's own."""
    if isinstance(retry, Never):
        return Exponential(attempts=attempts)
    if not isinstance(retry, Exponential | Linear | Constant):
        raise ConfigurationError(f"attempts: {retry!r} has its own; give it another policy")
    return replace(retry, attempts=attempts)


def may_retry(retry: Retry, error: BaseException) -> bool:
    """Whether an error of that kind is worth another try."""
    if isinstance(error, JobVerdict):
        return isinstance(error, RetryJob)
    return isinstance(error, retry.retry_on) and not isinstance(error, retry.give_up_on)
