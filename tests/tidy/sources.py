"""What the tidy tests read: the project's own files, and the names that code uses and defines."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src", "tests", "examples", "benchmarks")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def python_files(*places: str) -> tuple[Path, ...]:
    """Every Python file of ours under the places, which are directories of the checkout."""
    found = (path for place in places for path in (ROOT / place).rglob("*.py"))
    return tuple(sorted(path for path in found if "node_modules" not in path.parts))


def label(path: Path) -> str:
    """How complaints and exceptions name a file."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The file's syntax tree."""
    text = path.read_text(encoding="utf-8")
    try:
        return ast.parse(text, filename=str(path))
    except SystemError:
        # The parser of some versions of Python 3.11 loses count of its depth now and then.
        return ast.parse(text, filename=str(path))


def room(path: Path) -> str:
    """The room of the house that a file under src/kept stands in: `machine`, `errors`, `__init__`…"""
    return path.relative_to(ROOT / "src" / "kept").parts[0].removesuffix(".py")


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that code imports, wherever in the file, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def uses(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Every imported thing that code uses, by its full name, and the expression.

    After `from time import time as now`, a `now()` is a use of `time.time`.
    """
    meanings = _meanings(tree)

    def walk(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
        name = _full_name(node, meanings)
        if name is not None and isinstance(node, ast.expr):
            yield name, node
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return walk(tree)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call of an imported thing, by its full name."""
    meanings = _meanings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _full_name(node.func, meanings)) is not None:
            yield name, node


def gives_way(name: str, call: ast.Call) -> bool:
    """Whether a call is `asyncio.sleep(0)`, which lets others run and waits for no time."""
    match call.args:
        case [ast.Constant(value=seconds)]:
            return name == "asyncio.sleep" and seconds == 0
    return False


def _full_name(node: ast.AST, meanings: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return meanings.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _full_name(node.value, meanings)
        return owner and f"{owner}.{node.attr}"
    return None


def _meanings(tree: ast.AST) -> dict[str, str]:
    meanings: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                meanings[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                meanings[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return meanings


def definitions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every identifier that code itself chooses, and the line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno
            case ast.alias(asname=str(chosen)):
                yield chosen, node.lineno
