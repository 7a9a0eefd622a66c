"""Functions that kept runs: what is known of each, and the registry of an app."""

from __future__ import annotations

import copy
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from kept.errors import ConfigurationError, InvalidArgumentsError, UnregisteredError
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.sdk import checks, payload
from kept.sdk.checks import Span
from kept.sdk.context import Context
from kept.sdk.duplicates import Singleton, SingletonMode, singleton_tags
from kept.sdk.options import NO_OPTIONS, Exhausted, JobOptions
from kept.sdk.retry import Never, Retry, checked_policy, with_attempts

if TYPE_CHECKING:
    from kept.sdk.batches import Batch

P = ParamSpec("P")
T = TypeVar("T")
# Covariant: a function that gives a coroutine is one that gives an awaitable.
T_co = TypeVar("T_co", covariant=True)

NO_RETRY: Final[Retry] = Never()


class Function(Generic[P, T_co]):
    """A Python function with its name and version on the wire.

    `durable` says that it takes a Context: then it is replayed, and everything it does to the
    world belongs in steps. Others run as steps or jobs. Calling it calls the plain function.
    """

    def __init__(
        self,
        plain: Callable[P, T_co],
        *,
        name: str | None = None,
        version: int = 1,
        retry: Retry | None = None,
        options: JobOptions = NO_OPTIONS,
        singleton: SingletonMode | Singleton | None = None,
    ) -> None:
        functools.update_wrapper(self, plain)
        self.plain = plain
        self.name: str = name or str(getattr(plain, "__name__", type(plain).__name__))
        if "@" in self.name:
            raise ConfigurationError(
                f"{self.name!r}: a function's name has no '@', which stands before its version"
            )
        self.version = version
        self.retry = NO_RETRY if retry is None else checked_policy(retry)
        # Judged here, where the mistake is.
        self._set_options(options)
        singleton_tags(singleton)
        self.singleton = singleton
        self.timeout_ms: int | None = None
        # How it does many items together, where it does.
        self.batch: Batch | None = None
        self._hints = _hints_of(plain)
        signature = _signature_of(plain)
        parameters = list(signature.parameters.values())
        self.durable = bool(parameters) and self._is_context(parameters[0])
        # The Context is kept's to give; callers give the others.
        self.signature = signature.replace(parameters=parameters[1:]) if self.durable else signature
        self.asynchronous = _is_asynchronous(plain)
        if self.durable and not self.asynchronous:
            raise ConfigurationError(
                f"{self.name} takes a Context, so it must be declared with 'async def'"
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        return self.plain(*args, **kwargs)

    @property
    def queue(self) -> str | None:
        """Where its work waits; None: in the app's own queue."""
        return self.job_options.queue

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        lane: str | None = None,
        retry: Retry | None = None,
        attempts: int | None = None,
        exhausted: Exhausted | None = None,
        timeout: Span | None = None,
    ) -> Function[P, T_co]:
        """The same function, its jobs waiting and being tried otherwise: for `ctx.call`,
        `app.start_many` and `@app.schedule`, which take no options; they mean what they mean to
        `app.start`. `attempts` is how often at most, by the policy of `retry`, else by the
        function's own, else by `Exponential`. `timeout` (a timedelta or seconds) is the deadline of
        each call's promise, from its creation. Raises `InvalidArgumentsError`. Protocol B2.
        """
        if attempts is not None:
            retry = with_attempts(self.retry if retry is None else retry, attempts)
        said = JobOptions(queue, priority, lane, retry, exhausted)
        said.tags(durable=self.durable)
        other = copy.copy(self)
        other._set_options(said.over(self.job_options))
        if timeout is not None:
            other.timeout_ms = checks.milliseconds("timeout", timeout)
        return other

    def _set_options(self, options: JobOptions) -> None:
        self.job_options = options
        self.option_tags = options.tags(durable=False)

    def deadline_at(self, now: int) -> int:
        """When (ms) the promise of a call that is made at `now` times out."""
        return NEVER_MS if self.timeout_ms is None else min(now + self.timeout_ms, MAX_INTEGER - 1)

    @property
    def reference(self) -> str:
        """`name@version`: what a promise's tag says of it."""
        return f"{self.name}@{self.version}"

    @property
    def returns(self) -> Any:
        """The annotation of its result."""
        return self._hints.get("return", Any)

    @property
    def schema(self) -> dict[str, Any]:
        """What is announced of it (B9): its parameters with their types as text, and its result's."""
        parameters = [
            {
                "name": each.name,
                "type": inspect.formatannotation(self._hints.get(each.name, Any)),
                "required": each.default is inspect.Parameter.empty,
            }
            for each in self.signature.parameters.values()
        ]
        returns = inspect.formatannotation(self.returns)
        return {"parameters": parameters, "returns": returns, "durable": self.durable}

    def takes(self, name: str, given: int) -> bool:
        """Whether a keyword could be meant for the parameter of that name, with `given` arguments
        by position."""
        parameter = self.signature.parameters.get(name)
        if parameter is None or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            return False
        is_keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        return is_keyword or list(self.signature.parameters).index(name) >= given

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises `InvalidArgumentsError` where they do not fit the signature."""
        try:
            self._bind(args, kwargs)
        except TypeError as error:
            raise InvalidArgumentsError(f"{self.name}: {error}") from None

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Arguments by position. Raises `TypeError` where they do not fit."""
        return self._bind(args, kwargs).args

    def converted(self, stored: payload.Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Stored arguments as the annotations say. Raises `InvalidArgumentsError`."""
        try:
            bound = self._bind(tuple(stored.args), stored.kwargs)
        except TypeError as error:
            raise InvalidArgumentsError(f"{self.name}: {error}") from None
        for name, value in list(bound.arguments.items()):
            if name not in self._hints:
                continue
            kind = self.signature.parameters[name].kind
            hint = self._hints[name]
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(payload.convert(each, hint) for each in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {k: payload.convert(v, hint) for k, v in value.items()}
            else:
                bound.arguments[name] = payload.convert(value, hint)
        return bound.args, bound.kwargs

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        return self.signature.bind(*args, **kwargs)

    def _is_context(self, parameter: inspect.Parameter) -> bool:
        hint = self._hints.get(parameter.name)
        return hint is Context or (isinstance(hint, type) and issubclass(hint, Context))


def _is_asynchronous(plain: Callable[..., Any]) -> bool:
    """Also for objects that are called, such as instances with an `async def __call__`."""
    return inspect.iscoroutinefunction(plain) or (
        not inspect.isroutine(plain)
        and inspect.iscoroutinefunction(getattr(plain, "__call__", None))  # noqa: B004
    )


def _signature_of(plain: Callable[..., Any]) -> inspect.Signature:
    """The signature; of a builtin that does not tell, one that takes everything."""
    try:
        return inspect.signature(plain)
    except ValueError:
        return inspect.signature(lambda *args, **kwargs: None)


def _hints_of(plain: Callable[..., Any]) -> dict[str, Any]:
    """Annotations, resolved; those that name what is only imported for type checking are not."""
    try:
        return typing.get_type_hints(plain)
    except (NameError, TypeError):
        annotations = getattr(plain, "__annotations__", {})
        return {name: Context if hint in ("Context", "kept.Context") else Any
                for name, hint in annotations.items()}  # fmt: skip


class Declaration(Protocol):
    """`@app.function(…)`: what it makes of a function. A `Context` is not the caller's to give."""

    @overload
    def __call__(
        self, plain: Callable[Concatenate[Context, P], Awaitable[T]], /
    ) -> Function[P, Awaitable[T]]: ...
    @overload
    def __call__(self, plain: Callable[P, T], /) -> Function[P, T]: ...


class Registry:
    """The functions of an app by reference and by name."""

    def __init__(self) -> None:
        self._by_reference: dict[str, Function[..., Any]] = {}
        self._latest: dict[str, Function[..., Any]] = {}

    def add(self, function: Function[..., Any]) -> None:
        """Raises `ConfigurationError` where name and version are taken."""
        taken = self._by_reference.get(function.reference)
        if taken is not None and taken.plain is not function.plain:
            raise ConfigurationError(
                f"{function.reference} is registered twice; give one of them another name"
            )
        self._by_reference[function.reference] = function
        latest = self._latest.get(function.name)
        if latest is None or latest.version <= function.version:
            self._latest[function.name] = function

    def by_reference(self, reference: str) -> Function[..., Any]:
        """The function `name@version`; a bare name means its latest version.

        Raises `UnregisteredError`.
        """
        found = self.find(reference)
        if found is None:
            known = ", ".join(sorted(self._by_reference)) or "none"
            raise UnregisteredError(f"no function {reference} is registered here; known: {known}")
        return found

    def all(self) -> list[Function[..., Any]]:
        """Every function, in the order of registration."""
        return list(self._by_reference.values())

    def find(self, name: str) -> Function[..., Any] | None:
        """The function `name@version`, or the latest version of a bare name, if it is here."""
        return self._by_reference.get(name) or self._latest.get(name)

    def names(self) -> list[str]:
        """Everything that work may call them: `name@version` of each, and the bare names."""
        return [*self._by_reference, *self._latest]
