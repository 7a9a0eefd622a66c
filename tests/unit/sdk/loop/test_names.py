"""Names of branches and steps."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kept.sdk.loop.names import MAX_BRANCH_CHARACTERS, child_branch, step_name

paths = st.lists(st.integers(0, 10**6), max_size=8)


def branch(path: list[int]) -> str:
    name = ""
    for number in path:
        name = child_branch(name, number)
    return name


def test_the_scheme_is_the_documented_one() -> None:
    """Branches count from 0, steps from 1; the root's steps have no branch."""
    assert (branch([]), branch([0]), branch([1, 0, 12])) == ("", "0", "1.0.12")
    assert (step_name("", 3), step_name("1.0", 2)) == ("3", "1.0:2")


@given(paths, st.integers(1, 10**6), paths, st.integers(1, 10**6))
def test_no_two_steps_share_a_name(
    path: list[int], number: int, other_path: list[int], other_number: int
) -> None:
    """A step's name says its branch and its number, and nothing else has that name."""
    name = step_name(branch(path), number)
    other = step_name(branch(other_path), other_number)
    assert (name == other) == ((path, number) == (other_path, other_number))
    assert re.fullmatch(r"[0-9.:]+", name)


def test_names_stay_short_however_deep_branches_nest() -> None:
    """A chain of ten thousand generations keeps short names, all different."""
    names = [""]
    for _ in range(10_000):
        names.append(child_branch(names[-1], 0))
    assert max(map(len, names)) <= MAX_BRANCH_CHARACTERS
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[0-9.]*", name) for name in names)
