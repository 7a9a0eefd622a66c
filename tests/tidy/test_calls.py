"""What code never does: sleep in a test, swallow every error, load a pickle."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from tests.tidy import exceptions
from tests.tidy.ratchet import complaints
from tests.tidy.sources import CODE, calls, gives_way, imports, label, parsed, python_files

# Loading one runs code that it brings; values are JSON here.
PICKLING = {"_pickle", "cPickle", "cloudpickle", "dill", "marshal", "pickle", "shelve"}


def _sleeps(tree: ast.AST) -> Iterator[int]:
    """Lines that wait for a span chosen in advance; `asyncio.sleep(0)` only lets others run."""
    for name, call in calls(tree):
        match name, call.args:
            case "time.sleep", _:
                yield call.lineno
            case "asyncio.sleep", [ast.Constant(), *_] if not gives_way(name, call):
                yield call.lineno


def _catch_alls(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno


def test_no_test_sleeps() -> None:
    """Tests wait for what they need: a guessed span is slow where it is enough, and flaky where not."""
    found = Counter(label(path) for path in python_files("tests") for _ in _sleeps(parsed(path)))
    assert not complaints(found, exceptions.SLEEPS_IN_TESTS)


def test_no_handler_catches_everything() -> None:
    """A bare `except:` also swallows cancellation and the end of the process; nowhere is one."""
    found = [
        f"{label(path)}:{line}"
        for path in python_files(*CODE)
        for line in _catch_alls(parsed(path))
    ]
    assert found == []


def test_nothing_is_ever_pickled() -> None:
    """No code imports a module that reads or writes pickles."""
    found = [
        f"{label(path)}:{line}: {module}"
        for path in python_files(*CODE)
        for module, line in imports(parsed(path))
        if module.split(".")[0] in PICKLING
    ]
    assert found == []


def test_sleeping_is_found_under_any_name() -> None:
    """An alias hides no sleep, and giving way to others is none."""
    code = """
import asyncio
import time as clock
from asyncio import sleep as pause

async def test_something(delay):
    clock.sleep(delay)
    await pause(0.1)
    await asyncio.sleep(0)
    await asyncio.sleep(delay)
"""
    assert list(_sleeps(ast.parse(code))) == [7, 8]


def test_a_catch_all_is_found() -> None:
    """A bare handler is found, a named one is not."""
    code = "try:\n    pass\nexcept ValueError:\n    pass\nexcept:\n    pass\n"
    assert list(_catch_alls(ast.parse(code))) == [5]
