"""What is counted in one source file: nothing here knows of kept."""

from __future__ import annotations

import ast
import sysconfig
import threading
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}
NAMES = ("files", "lines", "functions", "classes", "unreadable")

Counts = dict[str, int]

# On Python 3.11.7, files parsed by several threads at once were seen to fail now and then with
# "SystemError: AST constructor recursion depth mismatch".
_ONE_PARSES = threading.Lock()


def packages() -> dict[str, list[str]]:
    """The library's files, relative to it, by package."""
    found: dict[str, list[str]] = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).parts
        if not NOT_THE_LIBRARY.intersection(parts):
            package = parts[0] if len(parts) > 1 else "(modules)"
            found.setdefault(package, []).append("/".join(parts))
    return found


def count_file(name: str) -> Counts:
    """Lines, functions, classes and the deepest nesting of one file."""
    source = (LIBRARY / name).read_bytes()
    counts = dict.fromkeys(NAMES, 0) | {"files": 1, "lines": source.count(b"\n"), "deepest": 0}
    try:
        with _ONE_PARSES:
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        # The library's own tests hold files that are wrong on purpose.
        counts["unreadable"] = 1
        return counts
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            counts["functions"] += 1
        elif isinstance(node, ast.ClassDef):
            counts["classes"] += 1
        if isinstance(node, ast.stmt | ast.excepthandler):
            depth += 1
            counts["deepest"] = max(counts["deepest"], depth)
            pending.extend((child, depth) for child in ast.iter_child_nodes(node))
        elif isinstance(node, ast.mod):
            pending.extend((child, depth) for child in node.body)  # type: ignore[attr-defined]
        else:
            pending.extend((child, depth) for child in ast.iter_child_nodes(node))
    return counts


def total(parts: list[Counts]) -> Counts:
    """Several counts as one."""
    summed = {name: sum(part[name] for part in parts) for name in NAMES}
    return summed | {"deepest": max((part["deepest"] for part in parts), default=0)}
