"""A file is one thing a reader can name, and a function fits on a screen."""

from __future__ import annotations

from collections.abc import Collection

from tests.tidy import exceptions
from tests.tidy.ratchet import complaints
from tests.tidy.sources import CODE, Function, functions, label, parsed, python_files

FILE_LIMIT_LINES = 800
FILE_TARGET_LINES = 400
FUNCTION_LIMIT_LINES = 70
FUNCTION_TARGET_LINES = 40

# Beyond the target "seldom" means: one in ten at most.
SELDOM = 10


def _file_lines(*places: str) -> dict[str, int]:
    return {
        label(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(*places)
    }


def _function_lines(*places: str) -> dict[str, int]:
    return {
        f"{label(path)}: {function.name}": _lines(function)
        for path in python_files(*places)
        for function in functions(parsed(path))
    }


def _lines(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def _over(measures: dict[str, int], limit: int) -> dict[str, int]:
    return {name: lines for name, lines in measures.items() if lines > limit}


def _are_seldom(some: Collection[str], of_all: Collection[str]) -> bool:
    return len(some) <= max(1, len(of_all) // SELDOM)


def test_no_file_is_too_long() -> None:
    """No file of code is longer than the limit, except those listed."""
    assert not complaints(_over(_file_lines(*CODE), FILE_LIMIT_LINES), exceptions.LONG_FILES)


def test_no_function_is_too_long() -> None:
    """No function is longer than the limit, except those listed."""
    found = _over(_function_lines(*CODE), FUNCTION_LIMIT_LINES)
    assert not complaints(found, exceptions.LONG_FUNCTIONS)


def test_files_over_the_target_stay_seldom() -> None:
    """In src, at most one file in ten is longer than the target."""
    files = _file_lines("src")
    over = _over(files, FILE_TARGET_LINES)
    assert _are_seldom(over, files), over


def test_functions_over_the_target_stay_seldom() -> None:
    """In src, at most one function in ten is longer than the target."""
    measures = _function_lines("src")
    over = _over(measures, FUNCTION_TARGET_LINES)
    assert _are_seldom(over, measures), over
