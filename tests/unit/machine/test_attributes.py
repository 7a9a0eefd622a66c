"""What running work says of itself (protocol B8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kept.protocol import requests as r
from kept.protocol.attributes import index_key
from kept.protocol.entries import Attributes, EntryKey, EntryKind
from kept.protocol.limits import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES
from kept.protocol.responses import PromiseResult
from tests.unit.machine.world import World, fulfill


def said(world: World, id: str = "a") -> tuple[dict[str, str] | None, float | None]:
    result = world.ok(r.PromiseGet(id, attributes=True), PromiseResult)
    return result.attributes, result.progress


def indexed(world: World) -> set[EntryKey]:
    return {key for key in world.dump.entries if key.kind is EntryKind.ATTRIBUTE}


def test_attributes_are_set_changed_and_taken_back() -> None:
    """What is not named stays; nobody sees them who does not ask."""
    world = World()
    world.started("a")
    assert said(world) == ({}, None)
    assert world.status(r.TaskAnnotate("a", 1, {"x": "1", "y": "2"}, 0.25)) == 200
    assert world.status(r.TaskAnnotate("a", 1, {"x": None, "z": "3"})) == 200
    assert said(world) == ({"y": "2", "z": "3"}, 0.25)
    assert world.promise("a").attributes is None
    assert indexed(world) == {index_key("y", "2", "a"), index_key("z", "3", "a")}


def test_only_the_holder_says_something() -> None:
    """Another version, work that is handed back, suspended or over: 409; and what was said stays."""
    world = World()
    assert world.status(r.TaskAnnotate("a", 1)) == 404
    world.started("a")
    assert world.status(r.TaskAnnotate("a", 2, {"x": "1"})) == 409
    assert world.status(r.TaskAnnotate("a", 1, {"x": "1"})) == 200
    world.ask(r.TaskRelease("a", 1))
    assert world.status(r.TaskAnnotate("a", 1, {"x": "2"})) == 409
    assert world.status(r.TaskAcquire("a", 1, "w", 1_000)) == 200
    world.ask(fulfill("a", 2))
    assert world.status(r.TaskAnnotate("a", 2, {"x": "2"})) == 409
    assert said(world) == ({"x": "1"}, None)


def test_bounds() -> None:
    """64 of 1 KiB, counted after what is taken back."""
    world = World()
    world.started("a")
    full: dict[str, str | None] = {f"n{number}": "v" for number in range(MAX_ATTRIBUTES)}
    assert world.status(r.TaskAnnotate("a", 1, full)) == 200
    assert world.status(r.TaskAnnotate("a", 1, {"more": ""})) == 422
    assert world.status(r.TaskAnnotate("a", 1, {"more": "", "n0": None})) == 200
    assert len(said(world)[0] or ()) == MAX_ATTRIBUTES
    assert world.status(r.TaskAnnotate("a", 1, {"n1": "v" * (MAX_ATTRIBUTE_BYTES - 2)})) == 200


@pytest.mark.parametrize(
    "values",
    [
        {"": "x"},
        {"a\0": "x"},
        {"a": "\0"},
        {"a": "x" * MAX_ATTRIBUTE_BYTES},
        {"a": "é" * (MAX_ATTRIBUTE_BYTES // 2)},
        {f"n{number}": None for number in range(2 * MAX_ATTRIBUTES + 1)},
    ],
    ids=["empty", "nul in name", "nul", "long", "long in bytes", "many"],
)
def test_what_cannot_be_stored_is_refused(values: dict[str, str | None]) -> None:
    """Before any record is read."""
    world = World()
    world.started("a")
    assert world.status(r.TaskAnnotate("a", 1, values)) == 400


_NAMES = st.sampled_from(["x", "y", '"', "é"])
_SETS = st.dictionaries(_NAMES, st.none() | st.sampled_from(["1", "2", "]", ""]), max_size=3)


@given(st.lists(st.tuples(st.sampled_from("ab"), _SETS, st.none() | st.floats(0, 1)), max_size=12))
def test_the_index_is_what_is_said(
    steps: list[tuple[str, dict[str, str | None], float | None]],
) -> None:
    """Whatever is set and taken back, in one commit or several."""
    world = World()
    plain: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    progress: dict[str, float] = {}
    for id in plain:
        world.started(id)
    for place, (id, values, fraction) in enumerate(steps):
        request = r.TaskAnnotate(id, 1, values, fraction)
        world.batch([request, request] if place % 2 else [request])
        merged = plain[id] | {name: text or "" for name, text in values.items()}
        plain[id] = {
            name: text for name, text in merged.items() if values.get(name, "") is not None
        }
        if fraction is not None:
            progress[id] = fraction
    for id, attributes in plain.items():
        assert said(world, id) == (attributes, progress.get(id))
        entry = world.dump.entries.get(EntryKey(EntryKind.ATTRIBUTES, id))
        assert entry is None or isinstance(entry.data, Attributes)
    assert indexed(world) == {
        index_key(name, text, id) for id, said_ in plain.items() for name, text in said_.items()
    }
