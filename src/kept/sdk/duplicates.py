"""What starting work says of duplicates: dedupe, debounce, singleton (protocol B4)."""

from __future__ import annotations

import hashlib
from typing import Final, Literal, NamedTuple, TypeAlias

from kept.errors import InvalidArgumentsError
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INTEGER
from kept.protocol.records import Value
from kept.sdk import checks
from kept.sdk.checks import Span

SingletonMode: TypeAlias = Literal["skip", "replace", "return"]
DebounceMode: TypeAlias = Literal["postpone", "replace"]


class Debounce(NamedTuple):
    """Starts under one `key` become one, `delay` after the last of them and at most `longest` after
    the first (timedeltas or seconds). `mode`: the waiting work is postponed with the arguments that
    it has, or replaced by one with the new arguments."""

    key: str
    delay: Span
    longest: Span | None = None
    mode: DebounceMode = "postpone"


class Singleton(NamedTuple):
    """While one of `key` (default: the function's name) is unsettled, another start is refused with
    a `ConflictError` ("skip"), takes its place ("replace"), or gives a handle to it ("return")."""

    mode: SingletonMode
    key: str | None = None


class Duplicates(NamedTuple):
    """What one start said of them."""

    dedupe: str | None = None
    window: Span | None = None
    debounce: Debounce | None = None
    singleton: SingletonMode | Singleton | None = None

    def tags(self, param: Value, now_ms: int) -> dict[str, str]:
        """The tags that say so. Raises `InvalidArgumentsError`."""
        return {
            **_dedupe_tags(self.dedupe, self.window, param),
            **_debounce_tags(self.debounce, now_ms),
            **singleton_tags(self.singleton),
        }


NO_DUPLICATES: Final = Duplicates()


def _dedupe_tags(key: str | None, window: Span | None, param: Value) -> dict[str, str]:
    if key is None:
        if window is not None:
            raise InvalidArgumentsError("dedupe_window: needs dedupe")
        return {}
    # Of the arguments alone: headers differ from one version of Python to the next.
    fingerprint = hashlib.sha256((param.data or "").encode()).hexdigest()
    tags = {tag.DEDUPE: checks.name("dedupe", key), tag.FINGERPRINT: fingerprint}
    if window is not None:
        tags[tag.DEDUPE_WINDOW] = str(checks.milliseconds("dedupe_window", window))
    return tags


def _debounce_tags(debounce: Debounce | None, now_ms: int) -> dict[str, str]:
    if debounce is None:
        return {}
    if not isinstance(debounce, Debounce):
        raise InvalidArgumentsError("debounce: must be a kept.Debounce(key, delay)")
    delay = now_ms + checks.milliseconds("debounce: delay", debounce.delay)
    tags = {
        tag.DEBOUNCE: checks.name("debounce: key", debounce.key),
        tag.DEBOUNCE_MODE: checks.choice("debounce: mode", debounce.mode, DebounceMode),
        tag.DELAY: str(min(delay, MAX_INTEGER - 2)),
    }
    if debounce.longest is not None:
        tags[tag.DEBOUNCE_MAX] = str(checks.milliseconds("debounce: longest", debounce.longest))
    return tags


def singleton_tags(singleton: SingletonMode | Singleton | None) -> dict[str, str]:
    """The tags of a singleton. Raises `InvalidArgumentsError`."""
    if singleton is None:
        return {}
    if not isinstance(singleton, Singleton):
        singleton = Singleton(singleton)
    tags = {tag.SINGLETON: checks.choice("singleton", singleton.mode, SingletonMode)}
    if singleton.key is not None:
        tags[tag.SINGLETON_KEY] = checks.name("singleton: key", singleton.key)
    return tags
