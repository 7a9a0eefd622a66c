"""Runs the functions of an app: claims their work, does it, and reports the results.

kept worker shop.main:app
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from kept.cli.failure import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
    UsageError,
    complain,
)

DEFAULT_ATTRIBUTE: Final = "app"

# What the shell calls a process that a signal ended.
_SIGNAL_EXIT_BASE: Final = 128

# Works until the event is set.
Work = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


class BrokenModuleError(Exception):
    """The app's module raised while it was imported; the cause is its own exception."""


def add_arguments(parser: argparse.ArgumentParser, _everywhere: argparse.ArgumentParser) -> None:
    """The arguments of `kept worker`."""
    parser.add_argument(
        "app", metavar="MODULE:APP", help="where the kept.App is; :app where it is named so"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        work = work_of(arguments.app)
    except BrokenModuleError as error:
        # Their code failed, so they need to see where.
        traceback.print_exception(error.__cause__)
        complain(str(error))
        return EXIT_REFUSED
    _configure_logs()
    return asyncio.run(work_until_signal(work))


def _configure_logs() -> None:
    """Each line with the job that it is about; a program that has set up its logs keeps them."""
    from kept.sdk.audit import JobFields
    from kept.server.logs import LineFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    handler.addFilter(JobFields())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


async def work_until_signal(work: Work) -> int:
    stop = asyncio.Event()
    received: list[int] = []

    def stop_or_exit(number: int) -> None:
        if received:
            os._exit(_SIGNAL_EXIT_BASE + number)
        received.append(number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if sys.platform == "win32":
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(stop_or_exit, n))
        else:
            loop.add_signal_handler(number, stop_or_exit, int(number))
    await work(stop)
    return EXIT_INTERRUPTED if signal.SIGINT in received else EXIT_OK


def work_of(target: str) -> Work:
    """The `work` of the app that `module:attribute` names, found from the working directory.

    Raises `UsageError` where there is no such module, attribute or app, and `BrokenModuleError`
    where the module fails to import.
    """
    name, _, path = target.partition(":")
    path = path or DEFAULT_ATTRIBUTE
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{target!r} does not name an app; write MODULE:APP, like shop.main:app")
    found: Any = _module(name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(f"module {name} has no {path}; write MODULE:APP with the app's name")
        found = getattr(found, part)
    work = getattr(found, "work", None)
    if not callable(work):
        raise UsageError(f"{name}:{path} is a {type(found).__name__}, not a kept.App")
    checked: Work = work
    return checked


def _module(name: str) -> Any:
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {error.name} in {directory} or among those installed"
            ) from error
        raise BrokenModuleError(f"importing {name} failed: {error}") from error
    except Exception as error:
        # Whatever their module raises, it is shown whole and ends the command.
        raise BrokenModuleError(f"importing {name} failed: {error!r}") from error
