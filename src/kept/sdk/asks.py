"""What durable code asked of the world, and what a promise says of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from kept.errors import ConfigurationError, NondeterminismError
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_ID_BYTES
from kept.protocol.records import PromiseRecord, Value
from kept.protocol.requests import PromiseCreate
from kept.sdk.services import Target

# A step's arguments are stored to be compared with a replay's; long ones by their digest.
MAX_STORED_ARGUMENTS: Final = 65_536
_DIGEST_HEADER: Final = "kept-arguments-sha256"


class Kind(Enum):
    """The things that durable code can ask for."""

    RUN = auto()
    CALL = auto()
    DETACHED = auto()
    PROMISE = auto()
    TIMER = auto()
    MESSAGE = auto()


class Ask:
    """One thing asked: the step's name in the code, and the promise that stands for it."""

    __slots__ = ("args", "create", "expected", "function", "kind", "kwargs", "step", "target")

    def __init__(
        self,
        kind: Kind,
        step: str,
        create: PromiseCreate,
        *,
        expected: Any = Any,
        function: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        target: Target | None = None,
    ) -> None:
        self.kind = kind
        self.step = step
        self.create = create
        # The annotation of its result.
        self.expected = expected
        self.function = function
        self.args = args
        self.kwargs = kwargs or {}
        # Whom a call reaches, as far as it is known before it is made.
        self.target = target

    @property
    def id(self) -> str:
        return self.create.id

    def check(self, recorded: PromiseRecord) -> None:
        """Raises `NondeterminismError` where a replay asks for something else than was recorded."""
        for name in (tag.FUNCTION, tag.TIMER, tag.EXTERNAL):
            before, now = recorded.tags.get(name), self.create.tags.get(name)
            if before != now:
                raise _differs(self, recorded, f"{name} = {before}", f"{name} = {now}")
        if recorded.param.normal() != self.create.param.normal():
            raise _differs(self, recorded, _shown(recorded.param), _shown(self.create.param))


def child_id(parent: str, step: str) -> str:
    """The id of a step's promise; one that would be too long is hashed (A10)."""
    id = f"{parent}.{step}"
    if len(id.encode()) <= MAX_ID_BYTES:
        return id
    return "h." + hashlib.sha256(id.encode()).hexdigest()


_STEP_NAME: Final = re.compile(r"[0-9.:]*")


def promise_name(name: str) -> str:
    """A promise's name as the code gave it. Raises `ConfigurationError` for one of a step's."""
    if _STEP_NAME.fullmatch(name):
        raise ConfigurationError(
            f"a promise cannot be called {name!r}: names of digits, dots and colons are for steps"
        )
    return name


def stored_arguments(arguments: Value) -> Value:
    """Arguments as a step's param keeps them."""
    data = arguments.data or ""
    if len(data) <= MAX_STORED_ARGUMENTS:
        return arguments
    digest = hashlib.sha256(data.encode()).hexdigest()
    return Value(headers={**(arguments.headers or {}), _DIGEST_HEADER: digest})


def _differs(ask: Ask, recorded: PromiseRecord, before: str, now: str) -> NondeterminismError:
    return NondeterminismError(
        f"step {ask.step} ({recorded.id}) asks for something else than was recorded: "
        f"recorded {before}, now {now}. Durable code must ask for the same things in the same "
        "order in every replay: put what varies (time, randomness, I/O) into steps, or give the "
        "changed function a new version"
    )


def _shown(value: Value) -> str:
    return (value.data or str(value.headers or "nothing"))[:200]
