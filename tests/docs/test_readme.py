"""What the documents show runs as it stands, and prints what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.programs import Reader, blocks_of, fits
from tests.tidy.sources import ROOT

DOCUMENTS = (
    "README.md",
    "docs/operations.md",
    "docs/protocol.md",
    "docs/guards.md",
    "docs/jobs.md",
)


@pytest.mark.skipif(sys.platform == "win32", reason="the documents' commands are a shell's")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_can_be_followed(document: str, tmp_path: Path) -> None:
    """Every program and command of the document, in order and in one directory, does what is shown."""
    text = (ROOT / document).read_text(encoding="utf-8")
    reader = Reader(tmp_path)
    try:
        problems = list(reader.follow(text))
    finally:
        reader.close()
    assert problems == []
    assert blocks_of(text), "a document without a program tests nothing"


def test_what_differs_is_told(tmp_path: Path) -> None:
    """A program that fails, a command that fails and one that prints something else are problems."""
    reader = Reader(tmp_path, patience=0)
    text = "```python\n1 / 0\n```\n\n```console\n$ false\n$ echo a\nb\n```\n"
    problems = list(reader.follow(text))
    assert [problem.split(": ")[0] for problem in problems] == ["line 1", "line 5", "line 5"]
    assert "ZeroDivisionError" in problems[0]


def test_output_is_compared_but_for_widths_and_gaps() -> None:
    """Columns may be wider and `…` stands for anything on its line, but nothing else may differ."""
    assert fits("id  order-42\ncreated  …\n", "id      order-42\ncreated   2026-01-01")
    assert not fits("id  order-42\n", "id  order-43\n")
    assert not fits("id  order-42\n", "id  order-42\nmore\n")
    assert fits("first\n…\nlast\n", "first\nlast\n")
    assert fits("first\n…\nlast\n", "first\nsecond\nthird\nlast\n")
    assert not fits("first\n…\nlast\n", "first\nsecond\n")
