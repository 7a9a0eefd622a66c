"""How the suite runs: coroutines as tests, a time limit on each, servers that may be missing."""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import inspect
import os
import signal
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NoReturn

import pytest
from hypothesis import settings

# The limit of pytest-timeout stands behind this one and ends what blocks the loop. A coroutine is
# cancelled a little earlier, because its traceback then shows the line that waits.
SHARE_OF_LIMIT = 0.9

# Both raise in the main thread, and what catches everything there goes on. A test that outlives them
# by so much ends its process, with the stacks of all threads: the other process and CI go on.
HANGS_AFTER_LIMITS = 3
# At the least, for a limit may be a fraction of a second, and reports take longer.
HANGS_AFTER_SECONDS = 120.0

# The error stream as it was before pytest captured it.
ERROR_STREAM = pytest.StashKey[int]()

# A deadline per example measures the machine. A failure in CI must be reproducible from its log.
settings.register_profile("kept", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("kept")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ERROR_STREAM] = os.dup(2)
    # A shell starts what runs in its background without Ctrl-C, and our children would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[ERROR_STREAM])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Ends the process of a test that neither its limit nor an exception could end."""
    limit = _time_limit(item)
    if limit is None:
        return (yield)
    stream = item.config.stash[ERROR_STREAM]
    seconds = max(limit * HANGS_AFTER_LIMITS, HANGS_AFTER_SECONDS)
    faulthandler.dump_traceback_later(seconds, exit=True, file=stream)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs `async def` tests, each on a fresh event loop, those under hypothesis's `@given` too."""
    test = pyfuncitem.obj
    limit = _time_limit(pyfuncitem)
    given = getattr(test, "hypothesis", None)
    if given is not None:
        if inspect.iscoroutinefunction(given.inner_test):
            given.inner_test = _synchronous(given.inner_test, limit)
        return None
    if not inspect.iscoroutinefunction(test):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    _synchronous(test, limit)(**{name: pyfuncitem.funcargs[name] for name in names})
    return True


def _synchronous(
    test: Callable[..., Coroutine[Any, Any, None]], limit: float | None
) -> Callable[..., None]:
    async def limited(*args: object, **kwargs: object) -> None:
        async with asyncio.timeout(limit):
            await test(*args, **kwargs)

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(limited(*args, **kwargs))

    return run


def _time_limit(item: pytest.Item) -> float | None:
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        seconds = float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    else:
        option = item.config.getoption("timeout")
        seconds = float(option if option is not None else item.config.getini("timeout") or 0)
    return seconds * SHARE_OF_LIMIT if seconds > 0 else None


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], NoReturn]:
    """For a test whose server or tool is not on this machine: call it with what is missing.

    The test is skipped, or fails where KEPT_REQUIRE_SERVERS=1 promises that everything is here.
    """

    def give_up(what: str) -> NoReturn:
        if os.environ.get("KEPT_REQUIRE_SERVERS") == "1":
            pytest.fail(f"{what} is not here, and KEPT_REQUIRE_SERVERS=1", pytrace=False)
        pytest.skip(f"{what} is not here")

    return give_up
