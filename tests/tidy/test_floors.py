"""What the floors ask beyond the order that import-linter holds (see pyproject.toml)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.tidy.sources import imports, label, parsed, python_files, room

# Synchronous, deterministic and total: time, ids and records come in as arguments.
SANS_IO = {"machine", "protocol"}
INPUT_AND_OUTPUT = {
    "asyncio",
    "concurrent",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "select",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
}

# Who may import the rooms that examine the others; tests may, too.
EXAMINERS = {
    "check": {"check", "cli", "sim"},
    "contract": {"cli", "contract", "sim"},
    "sim": {"cli", "sim"},
}


def _coroutines(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno


def test_the_machine_and_the_protocol_do_no_input_or_output() -> None:
    """Nothing that reaches a clock, entropy, a thread, a file or the network is imported there."""
    found = [
        f"{label(path)}:{line}: {module}"
        for path in python_files("src")
        if room(path) in SANS_IO
        for module, line in imports(parsed(path))
        if module.split(".")[0] in INPUT_AND_OUTPUT
    ]
    assert found == []


def test_the_machine_and_the_protocol_never_wait() -> None:
    """There is no coroutine in them: what is applied is applied in one go."""
    found = [
        f"{label(path)}:{line}"
        for path in python_files("src")
        if room(path) in SANS_IO
        for line in _coroutines(parsed(path))
    ]
    assert found == []


@pytest.mark.parametrize("examiner", sorted(EXAMINERS))
def test_only_the_command_line_and_tests_import_an_examiner(examiner: str) -> None:
    """What people run in production never depends on simulation, checks or contract suites."""
    found = [
        f"{label(path)}:{line}"
        for path in python_files("src")
        if room(path) not in EXAMINERS[examiner]
        for module, line in imports(parsed(path))
        if f"{module}.".startswith(f"kept.{examiner}.")
    ]
    assert found == []


def test_coroutines_are_found() -> None:
    """Every asynchronous construct is found, wherever it stands."""
    code = "async def work(lock):\n    async with lock:\n        await lock.wait()\n"
    assert sorted(_coroutines(ast.parse(code))) == [1, 2, 3]
