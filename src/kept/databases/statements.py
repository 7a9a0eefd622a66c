"""Statements for several databases and drivers: written with `?`, rendered for the one at hand.

No statement of ours holds a `?`, `%` or `:` of its own. Values are texts, whole numbers and None.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, TypeAlias

from kept.errors import ConfigurationError

Value: TypeAlias = str | int | None
Row: TypeAlias = tuple[Value, ...]
Values: TypeAlias = Sequence[Value]


class Dialect(StrEnum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Placeholders(StrEnum):
    """How a driver marks the values in a statement."""

    QUESTION = "?"
    FORMAT = "%s"
    DOLLAR = "$1"
    NAMED = ":v1"


_MARK: Final[dict[Placeholders, Callable[[int], str]]] = {
    Placeholders.FORMAT: lambda number: "%s",
    Placeholders.DOLLAR: lambda number: f"${number}",
    Placeholders.NAMED: lambda number: f":v{number}",
}


@functools.lru_cache(maxsize=256)
def rendered(statement: str, placeholders: Placeholders) -> str:
    """The statement with the placeholders of a driver."""
    if placeholders is Placeholders.QUESTION:
        return statement
    first, *others = statement.split("?")
    mark = _MARK[placeholders]
    return first + "".join(f"{mark(n)}{part}" for n, part in enumerate(others, start=1))


def dialect_of(name: str) -> Dialect:
    """The dialect that a driver or a caller names. Raises `ConfigurationError`."""
    try:
        return Dialect(name)
    except ValueError:
        known = " and ".join(Dialect)
        raise ConfigurationError(f"{name} is not supported: databases are {known}") from None
