"""Durations and instants in and out."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kept.cli.durations import deadline, duration, instant_after, relative
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.protocol.spoken import spoken, timestamp


@pytest.mark.parametrize(
    ("text", "length_ms"),
    [
        ("500ms", 500),
        ("10s", 10_000),
        ("1.5s", 1_500),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("0s", 0),
    ],
)
def test_durations_are_read(text: str, length_ms: int) -> None:
    """Numbers with units, joined."""
    assert duration(text) == length_ms


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "-1s", "1y", "10s!", "never", "9" * 30 + "d"]
)
def test_other_texts_are_refused(text: str) -> None:
    """Anything else is an error that argparse shows, never a guess."""
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


def test_never_is_the_protocols_none() -> None:
    """`never`, and what lies beyond all numbers, is the deadline that arms nothing."""
    assert deadline("never") is None
    assert instant_after(5, None) == NEVER_MS
    assert instant_after(5, MAX_INTEGER) == NEVER_MS
    assert instant_after(5, 10) == 15
    assert timestamp(NEVER_MS) == "never"
    assert relative(NEVER_MS, 0) == "never"


@pytest.mark.parametrize(
    ("length_ms", "text"),
    [
        (0, "0ms"),
        (999, "999ms"),
        (1_500, "1.5s"),
        (59_999, "59s"),
        (200_000, "3m 20s"),
        (3_600_000, "1h"),
        (90_000_000, "1d 1h"),
    ],
)
def test_durations_are_spoken(length_ms: int, text: str) -> None:
    """The two largest units."""
    assert spoken(length_ms) == text


@given(st.integers(0, 10**14))
def test_spoken_durations_are_read_again_nearly(length_ms: int) -> None:
    """What is shown can be typed back in and is never more, nor much less."""
    again = duration(spoken(length_ms).replace(" ", ""))
    assert 0.9 * length_ms - 60 <= again <= length_ms + 50


@given(st.integers(0, NEVER_MS))
def test_every_instant_has_a_text(instant_ms: int) -> None:
    """No instant that the protocol allows breaks a listing."""
    assert timestamp(instant_ms)
    assert relative(instant_ms, 1_700_000_000_000)
