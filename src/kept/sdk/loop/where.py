"""Where in the user's code something happened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

_STANDARD_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep
_OURS: Final = str(Path(__file__).parents[1]) + os.sep
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

# Below this function of the loop stands whoever runs it, and that is not whose line we look for.
_BOTTOM: Final = "DurableLoop._drain"


def calling_line(frame: FrameType | None) -> str:
    """`file:line, in function` of the user's code that led to `frame`.

    The innermost frame that is neither the SDK's, nor the standard library's, nor an installed package's;
    failing that, an installed package's.
    """
    return _best(_callers(frame))


def waiting_line(coroutine: Any) -> str:
    """`file:line, in function` where a suspended coroutine of the user waits."""
    return _best(reversed(list(_awaited(coroutine))))


def _best(frames: Iterator[FrameType]) -> str:
    installed: FrameType | None = None
    for frame in frames:
        file = frame.f_code.co_filename
        if any(part in file for part in _INSTALLED):
            installed = installed or frame
        elif not file.startswith((_STANDARD_LIBRARY, _OURS, "<frozen ")):
            return _line(frame)
    return _line(installed) if installed is not None else "an unknown line"


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_qualname}"


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None and frame.f_code.co_qualname != _BOTTOM:
        yield frame
        frame = frame.f_back


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a chain of awaits, outermost first; it ends where something is not written in Python."""
    while coroutine is not None:
        kind = next(
            (kind for kind in ("cr", "gi", "ag") if hasattr(coroutine, f"{kind}_frame")), None
        )
        if kind is None:
            return
        frame = getattr(coroutine, f"{kind}_frame")
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
