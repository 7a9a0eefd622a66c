"""What the project's texts never hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.sources import CODE, ROOT, label

# A path of the machine that something was written on says nothing to anyone else. The pattern is in
# two parts, or this file would hold what it forbids.
MACHINE_PATH = re.compile(r"(?<![\w.~\]})>-])/" + r"(?:work|root)/")

PLACES = (*CODE, "docs", "scripts", ".ci")
# In a worktree, .git is a file that says where its repository is.
INSTALLED = {"__pycache__", "node_modules", ".git"}


def _texts() -> Iterator[tuple[Path, str]]:
    below = [path for place in PLACES for path in (ROOT / place).rglob("*")]
    for path in [*ROOT.glob("*"), *below]:
        if path.is_file() and not INSTALLED & set(path.parts):
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture, or a database


def test_no_text_names_a_path_of_a_machine() -> None:
    """Nothing in the project depends on, or tells, where someone once kept it."""
    found = [
        f"{label(path)}:{number}"
        for path, text in _texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_machine_paths_are_found() -> None:
    """A path is found wherever it starts; a longer word, or a part of another path, is none."""
    for some in ("work", "root"):
        assert MACHINE_PATH.search(f"see /{some}/notes.md")
        assert MACHINE_PATH.search(f'"/{some}/"')
        assert not MACHINE_PATH.search(f"/{some}er/")
        assert not MACHINE_PATH.search(f"src/{some}/file.py")
        assert not MACHINE_PATH.search(f"http://host/{some}/")
