"""The documents agree with the code: generated sections, links, names of files and make targets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.tidy.sources import ROOT, label

# [text](target), without targets on other machines.
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# A file of this checkout, named in backticks by its path.
FILE = re.compile(r"`((?:src|tests|docs|examples|benchmarks|scripts)/[\w./-]*\w)`")
ROOM = re.compile(
    r"`((?:machine|engine|stores|sdk|server|client|transports|check|protocol|cli)/[\w/]+\.\w+)`"
)
TARGET = re.compile(r"`make ([a-z0-9]+)")

# What the code of a change still has to bring; the changelog may name what is gone.
NOT_CHECKED = {"CHANGELOG.md"}


def documents() -> list[Path]:
    """Every document written for people."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path for path in found if path.name not in NOT_CHECKED)


def test_generated_sections_are_up_to_date() -> None:
    """Diagrams, bounds and properties in the documents are those of the code."""
    command = [sys.executable, str(ROOT / "scripts" / "documents.py"), "--check"]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_links_lead_somewhere() -> None:
    """Every link to a file of the checkout names one that is there."""
    broken = [
        f"{label(path)}: {target}"
        for path in documents()
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert broken == []


def anchors(path: Path) -> set[str]:
    """What a link may name within a document: its headings, as GitHub writes them in links."""
    headings = HEADING.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_links_into_documents_lead_somewhere() -> None:
    """Every link to a section names a heading that is there."""
    broken = [
        f"{label(path)}: {target}#{anchor}"
        for path in documents()
        for target, anchor in ANCHOR.findall(path.read_text(encoding="utf-8"))
        if anchor not in anchors(path.parent / target if target else path)
    ]
    assert broken == []


def test_files_that_are_named_exist() -> None:
    """A path in backticks is that of a file or directory, whole or from src/kept."""
    missing = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        missing += [
            f"{label(path)}: {name}" for name in FILE.findall(text) if not (ROOT / name).exists()
        ]
        missing += [
            f"{label(path)}: {name}"
            for name in ROOM.findall(text)
            if not (ROOT / "src" / "kept" / name).exists()
        ]
    assert missing == []


def test_make_targets_that_are_named_exist() -> None:
    """`make x` in a document is a target of the Makefile."""
    known = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    unknown = [
        f"{label(path)}: make {target}"
        for path in documents()
        for target in TARGET.findall(path.read_text(encoding="utf-8"))
        if target not in known
    ]
    assert unknown == []
