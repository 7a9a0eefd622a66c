"""Call trees of every shape and size."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from kept.cli.output import Output
from kept.cli.tree_drawing import Drawing, Limits, draw
from kept.cli.tree_nodes import Tree, build_tree
from kept.protocol import tags as tag
from kept.protocol.records import EMPTY, PromiseRecord, PromiseState
from tests.unit.cli.conftest import Terminal

NO_LIMITS = Limits(0, 0, 0)


def promise(
    id: str, parent: str | None = None, created_at: int = 0, settled_at: int | None = None
) -> PromiseRecord:
    tags = {tag.ORIGIN: "root"} if parent is None else {tag.ORIGIN: "root", tag.PARENT: parent}
    state = PromiseState.PENDING if settled_at is None else PromiseState.RESOLVED
    return PromiseRecord(id, state, EMPTY, EMPTY, tags, 10**15, created_at, settled_at)


def tree_of(*promises: PromiseRecord, root: str = "root") -> Tree:
    return build_tree(root, {p.id: p for p in promises})


def drawn(tree: Tree, limits: Limits = NO_LIMITS, stream: io.StringIO | None = None) -> list[str]:
    stream = stream or io.StringIO()
    drawing = Drawing(tree, Output(60_000, json=False, quiet=True, stream=stream), limits)
    drawing.print(draw(drawing))
    return stream.getvalue().splitlines()


def test_tree_is_drawn_like_folders() -> None:
    """Lines, corners and bars; children by age, then by their numbers as numbers."""
    tree = tree_of(
        promise("root", "root"),
        promise("root.10", "root"),
        promise("root.2", "root", settled_at=1_500),
        promise("root.2.1", "root.2"),
        promise("root.3", "root", created_at=5_000),
    )
    assert drawn(tree, stream=_Utf8()) == [
        "root            ● pending  for 1m",
        "├─ root.2       ✓ resolved  in 1.5s, 1970-01-01T00:00:01.500Z",
        "│  └─ root.2.1  ● pending  for 1m",
        "├─ root.10      ● pending  for 1m",
        "└─ root.3       ● pending  for 55s",
    ]


def test_plain_letters_where_boxes_cannot_be_shown() -> None:
    """A stream that is not UTF-8 gets ASCII."""
    tree = tree_of(promise("root"), promise("a", "root"))
    lines = drawn(tree)
    assert lines[1].isascii()
    assert lines[1].startswith("`- a")


def test_missing_parents_and_circles_are_shown_with_the_reason() -> None:
    """Nothing of the origin disappears: what no path reaches is shown below the root, once."""
    tree = tree_of(
        promise("root"),
        promise("orphan", "gone"),
        promise("orphan.1", "orphan"),
        promise("x", "z"),
        promise("y", "x"),
        promise("z", "y"),
        promise("loose"),
    )
    assert tree.astray == {
        "orphan": "its parent gone is missing",
        "loose": "no parent",
        "x": "its parents go round in a circle",
    }
    assert sorted(p.id for p in tree.in_order()) == sorted(tree.promises)
    lines = drawn(tree)
    assert sum("again: a circle" in line for line in lines) == 1


def test_branch_shows_only_what_is_below_it() -> None:
    """Seen from a branch, the rest of the origin is not astray."""
    tree = tree_of(promise("root"), promise("a", "root"), promise("a.1", "a"), root="a")
    assert [p.id for p in tree.in_order()] == ["a", "a.1"]


def test_circle_seen_from_inside() -> None:
    """A promise that is its own ancestor is drawn once, and where the circle closes says so."""
    tree = tree_of(promise("x", "y"), promise("y", "x"), root="x")
    assert [p.id for p in tree.in_order()] == ["x", "y"]
    assert [line.split()[-4:] for line in drawn(tree)][2] == ["x", "again:", "a", "circle"]


def test_wide_and_deep_trees_stay_bounded() -> None:
    """A fan-out of 100,000 and a chain of 20,000 are a few lines, with counts of what is left out."""
    wide = tree_of(promise("root"), *(promise(f"root.{n}", "root") for n in range(100_000)))
    lines = drawn(wide, Limits())
    assert len(lines) == 52
    assert "99,950 more: 99,950 pending" in lines[-1]
    chain = [promise("root")]
    for number in range(20_000):
        chain.append(promise(f"n{number}", chain[-1].id))
    lines = drawn(tree_of(*chain), Limits())
    assert len(lines) == 34
    assert "19,968 more below" in lines[-1]
    assert len(list(tree_of(*chain).in_order())) == 20_001


def test_lines_are_bounded() -> None:
    """However a tree branches, no more lines than asked for, and the last one says so."""
    promises = [promise("root")]
    for a in range(40):
        promises.append(promise(f"{a}", "root"))
        promises += [promise(f"{a}.{b}", f"{a}") for b in range(40)]
    lines = drawn(tree_of(*promises), Limits(lines=100))
    assert len(lines) == 101
    assert "stopped after 100 lines" in lines[-1]


@given(
    st.dictionaries(st.integers(0, 30), st.integers(-1, 30), max_size=30),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 5),
)
def test_any_shape_is_drawn(parents: dict[int, int], depth: int, children: int, lines: int) -> None:
    """Whatever points where, drawing ends, and without limits every promise is on a line once."""
    promises = [promise("root")]
    promises += [
        promise(f"p{id}", "root" if parent < 0 else f"p{parent}") for id, parent in parents.items()
    ]
    tree = tree_of(*promises)
    assert sorted(p.id for p in tree.in_order()) == sorted(p.id for p in promises)
    drawing = Drawing(tree, Output(0, json=False, quiet=True, stream=Terminal()), NO_LIMITS)
    shown = [line.promise.id for line in draw(drawing) if line.promise]
    assert sorted(shown) == sorted(p.id for p in promises)
    drawn(tree, Limits(depth, children, lines))


class _Utf8(io.StringIO):
    encoding = "utf-8"
