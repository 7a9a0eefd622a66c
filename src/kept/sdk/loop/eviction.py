"""How a workflow leaves memory: its coroutines are closed where they stand, and nobody hears of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from kept.sdk.loop.tasks import DurableTask

# Each close throws GeneratorExit where the coroutine stands. Code that swallows it and awaits again gets it
# again there, but not for ever.
MAX_CLOSES: Final = 100

_UNAWAITED: Final = (
    "ignore",
    re.compile("coroutine .* was never awaited"),
    RuntimeWarning,
    None,
    0,
)


def evict(task: DurableTask[Any]) -> None:
    """Closes a task's coroutine. What it raises on the way is of no interest."""
    coro: Any = task.get_coro()
    for _ in range(MAX_CLOSES):
        try:
            coro.close()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - the user's cleanup failed, and the work is not over
            pass
        if getattr(coro, "cr_frame", None) is None and getattr(coro, "gi_frame", None) is None:
            return


@contextmanager
def without_complaints() -> Iterator[None]:
    """Mutes "coroutine … was never awaited" for coroutines that an evicted frame made and did not reach.

    One filter put in front, and taken out again. `warnings.catch_warnings` would put back the whole list as
    it was, and so undo what another thread did to it meanwhile, and make every warning of the process new
    again.
    """
    filters: list[object] = warnings.filters  # type: ignore[assignment]
    filters.insert(0, _UNAWAITED)
    try:
        yield
    finally:
        # Not there any more when cleanup code of the user has reset the filters.
        with suppress(ValueError):
            filters.remove(_UNAWAITED)
