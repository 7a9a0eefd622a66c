"""Every test says what it holds."""

from __future__ import annotations

import ast

from tests.tidy.sources import functions, label, parsed, python_files


def test_every_test_states_its_property() -> None:
    """Each test function has a docstring: what is true, which a name alone is too short to say."""
    silent = [
        f"{label(path)}:{function.lineno}: {function.name}"
        for path in python_files("tests")
        if path.name.startswith("test_")
        for function in functions(parsed(path))
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []
