"""Writes the generated sections of the documents, or says which are out of date.

    python scripts/documents.py            rewrites them
    python scripts/documents.py --check    exit code 1, and their names, where one differs

A section stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kept.check.properties import (
    CONFIG_PROPERTIES,
    INTERNAL_STEP_PROPERTIES,
    STATE_PROPERTIES,
    STEP_PROPERTIES,
)
from kept.machine.transitions import PROMISE_TRANSITIONS, TASK_TRANSITIONS, state_diagram
from kept.protocol import limits
from kept.server.metric_table import markdown as metrics_table
from kept.sim.zoo.table import table as zoo

ROOT: Final = Path(__file__).resolve().parent.parent


def diagrams() -> str:
    """The state diagrams of promises and tasks."""
    parts = []
    for name, table in (("promise", PROMISE_TRANSITIONS), ("task", TASK_TRANSITIONS)):
        parts.append(f"A {name}:\n\n```mermaid\n{state_diagram(table)}\n```")
    return "\n\n".join(parts)


def properties() -> str:
    """Every named property with its statement."""
    parts = []
    for title, family in (
        ("Of every state", STATE_PROPERTIES),
        ("Of every step", STEP_PROPERTIES),
        ("Of every step that nobody asked for", INTERNAL_STEP_PROPERTIES),
        ("Of the settings", CONFIG_PROPERTIES),
    ):
        entries = [f"- `{name}`: {_sentence(each.statement)}" for name, each in family.items()]
        parts.append(f"## {title} ({len(entries)})\n\n" + "\n".join(entries))
    return "\n\n".join(parts)


def bounds() -> str:
    """The bounds of the protocol, as the code has them."""
    code = [path.read_text() for path in (ROOT / "src").rglob("*.py") if path.name != "limits.py"]
    # A bound that nobody asks about is none.
    names = [
        name
        for name, value in vars(limits).items()
        if name.isupper() and type(value) is int and any(name in text for text in code)
    ]
    rows = [f"| `{name}` | {getattr(limits, name):,} |" for name in names]
    return "\n".join(["| bound | value |", "|---|---|", *rows])


def _sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split())


SECTIONS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "ARCHITECTURE.md": ("state diagrams", diagrams),
    "docs/properties.md": ("properties", properties),
    "docs/protocol.md": ("bounds", bounds),
    "docs/operations.md": ("metrics", metrics_table),
    "docs/design/bug-zoo.md": ("bug zoo", zoo),
}


def renewed(text: str, name: str, section: str) -> str:
    """The document's text with the section in it. Raises `ValueError` where it has no place."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"a document needs {begin} and {end}, once")
    return pattern.sub(lambda _: f"{begin}\n\n{section}\n\n{end}", text)


def main(arguments: list[str]) -> int:
    """The exit code: 1 where `--check` finds a section that is out of date."""
    stale = []
    for file, (name, section) in SECTIONS.items():
        path = ROOT / file
        before = path.read_text(encoding="utf-8")
        after = renewed(before, name, section())
        if before == after:
            continue
        stale.append(file)
        if arguments != ["--check"]:
            path.write_text(after, encoding="utf-8")
    if arguments == ["--check"] and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
