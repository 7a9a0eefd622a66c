"""Names are the field's, one for each thing, and spelled out."""

from __future__ import annotations

import re
from collections import Counter

from tests.tidy import exceptions
from tests.tidy.ratchet import complaints
from tests.tidy.sources import CODE, ROOT, definitions, label, parsed, python_files
from tests.tidy.vocabulary import ABBREVIATIONS, DICTATED, NAMELESS_FILES, SYNONYMS

# What the documentation of typing and of pytest call the types of any number of arguments, and what
# stands beside `out`.
CUSTOMARY = {"Ts", "err"}

WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def _better_name(identifier: str) -> str | None:
    """The word to use instead, when the identifier holds one that is banned."""
    if identifier in CUSTOMARY:
        return None
    words = "_".join(WORD.findall(identifier)).lower()
    for banned, better in {**SYNONYMS, **ABBREVIATIONS}.items():
        if f"_{banned}_" in f"_{words}_":
            return better
    return None


def test_no_file_is_nameless() -> None:
    """No file or directory of code is named for being of use."""
    nameless = [
        label(path)
        for path in python_files(*CODE)
        if NAMELESS_FILES & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
    ]
    assert nameless == []


def test_no_identifier_is_a_synonym_or_an_abbreviation() -> None:
    """No identifier that the project defines holds a banned word, except those listed."""
    found = Counter(
        name
        for path in python_files(*CODE)
        for identifier, _ in definitions(parsed(path))
        if _better_name(identifier) and (name := f"{label(path)}: {identifier}") not in DICTATED
    )
    assert not complaints(found, exceptions.BANNED_NAMES), (
        "tests/tidy/vocabulary.py has better ones"
    )


def test_banned_words_are_found_in_every_spelling() -> None:
    """Snake case and camel case are read as words; a banned word inside another word is none."""
    assert _better_name("DeadletterStore") == "dead_letter"
    assert _better_name("next_msg") == "message"
    assert _better_name("HTTPResp") == "response"
    assert _better_name("my_job_queue") == "queue"
    assert _better_name("message_bufferable") is None
    assert _better_name("ttl_ms") is None
