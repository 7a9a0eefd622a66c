"""The lists of exceptions only shrink."""

from __future__ import annotations

from tests.tidy.ratchet import complaints


def test_a_new_finding_is_a_complaint() -> None:
    """What breaks a rule and is not listed fails."""
    assert complaints({"a.py": 900}, {}) == ["a.py: 900"]


def test_a_listed_finding_is_no_complaint_until_it_grows() -> None:
    """An exception covers what it was written for, and no more."""
    assert complaints({"a.py": 900}, {"a.py": 900}) == []
    assert complaints({"a.py": 901}, {"a.py": 900}) == ["a.py: 901, and its exception says 900"]


def test_an_exception_without_a_finding_is_a_complaint() -> None:
    """An exception that is no longer needed fails, so the list cannot grow old."""
    (complaint,) = complaints({}, {"a.py": 900})
    assert "remove its exception" in complaint
