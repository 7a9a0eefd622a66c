"""What can go wrong on a durable loop, besides `NotDurableError`."""

from __future__ import annotations

from typing import ClassVar

from kept.errors import KeptError


class EvictedError(GeneratorExit):
    """Raised inside durable code that still asks for something while its loop is being closed.

    It is a `GeneratorExit`, so `except Exception` in the code does not swallow it, and a coroutine that ends
    with it counts as closed. The work goes on later, from its records; nobody needs to handle this.
    """


class DeadlockError(KeptError):
    """Durable code waits, and nothing from outside can ever wake it."""

    code: ClassVar[str] = "deadlock"


class NoProgressError(KeptError):
    """Durable code keeps itself busy without ever waiting for anything from outside."""

    code: ClassVar[str] = "no_progress"
