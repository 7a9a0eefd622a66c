"""What went wrong, as one line for people and an exit code for programs."""

from __future__ import annotations

import sys
from typing import Final

from kept.errors import (
    ConfigurationError,
    ConnectionFailedError,
    ForbiddenError,
    InvalidArgumentsError,
    RequestError,
    StoreError,
    UnauthenticatedError,
)

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 130


class UsageError(Exception):
    """The command line asks for something that cannot be; the text says what to write instead."""


def complain(text: str) -> None:
    """A line on standard error, as every error of the command looks."""
    print(f"kept: {text}", file=sys.stderr)


def explain(error: Exception) -> tuple[str, int]:
    """A line that says what happened and what to do, and the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, UnauthenticatedError):
        return f"{text}; pass a valid --token or set KEPT_TOKEN", EXIT_REFUSED
    if isinstance(error, ForbiddenError):
        return f"{text}; the token does not allow this", EXIT_REFUSED
    if isinstance(error, RequestError):
        return text, EXIT_REFUSED
    if isinstance(error, ConnectionFailedError):
        return (
            f"{text} (start one with `kept serve`, or name it with --url or KEPT_URL)",
            EXIT_UNREACHABLE,
        )
    if isinstance(error, StoreError):
        return text, EXIT_UNREACHABLE
    if isinstance(error, (ConfigurationError, InvalidArgumentsError, UsageError)):
        return text, EXIT_USAGE
    return text, EXIT_REFUSED
