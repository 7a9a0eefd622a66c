"""Promises by parent, for trees of any size and shape: nothing here recurses."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kept.protocol import tags as tag
from kept.protocol.records import PromiseRecord

_DIGITS: Final = re.compile(r"(\d+)")


class Tree(msgspec.Struct):
    """A root, everybody's children in order, and what is astray.

    `astray` are promises of the same origin that no path from the root reaches, each with the
    reason: their parent is missing, or their parents go round in a circle. They are shown below
    the root.
    """

    root: str
    promises: dict[str, PromiseRecord]
    children: dict[str, list[str]]
    astray: dict[str, str]

    def below(self, id: str) -> list[str]:
        """The children of a promise, those astray below the root among them."""
        children = self.children.get(id, [])
        return [*children, *self.astray] if id == self.root else children

    def in_order(self) -> Iterator[PromiseRecord]:
        """Every promise once, parents before children."""
        return (self.promises[id] for id, _ in self.walk(self.root))

    def walk(self, start: str) -> Iterator[tuple[str, int]]:
        """Ids with their depth, from `start` down, each once."""
        seen = {start}
        stack = [(start, 0)]
        while stack:
            id, depth = stack.pop()
            yield id, depth
            for child in reversed(self.below(id)):
                if child not in seen:
                    seen.add(child)
                    stack.append((child, depth + 1))

    def size_below(self, id: str) -> int:
        """How many promises there are below one."""
        return sum(1 for _ in self.walk(id)) - 1


def build_tree(root: str, promises: Mapping[str, PromiseRecord]) -> Tree:
    """The tree below `root` by the tag `resonate:parent`. What is astray counts only where `root`
    is the origin: seen from a branch, everything else merely belongs elsewhere."""
    kept = dict(promises)
    children: dict[str, list[str]] = defaultdict(list)
    for id, promise in kept.items():
        parent = promise.tags.get(tag.PARENT)
        # Clients name a root as its own parent.
        if parent is not None and parent != id:
            children[parent].append(id)
    for siblings in children.values():
        siblings.sort(key=lambda id: (kept[id].created_at, _natural(id)))
    tree = Tree(root, kept, dict(children), {})
    reached = {id for id, _ in tree.walk(root)}
    if kept[root].tags.get(tag.ORIGIN, root) == root:
        tree.astray = _astray(tree, reached)
    return tree


def _astray(tree: Tree, reached: set[str]) -> dict[str, str]:
    astray: dict[str, str] = {}
    lost = sorted((id for id in tree.promises if id not in reached), key=_natural)
    for id in lost:
        parent = tree.promises[id].tags.get(tag.PARENT)
        if parent is None or parent == id:
            astray[id] = "no parent"
        elif parent not in tree.promises:
            astray[id] = f"its parent {parent} is missing"
    for id in astray:
        reached.update(below for below, _ in tree.walk(id))
    for id in lost:
        if id not in reached:
            astray[id] = "its parents go round in a circle"
            reached.update(below for below, _ in tree.walk(id))
    return astray


def _natural(id: str) -> list[tuple[int, str]]:
    """Numbers by value: `a.2` before `a.10`."""
    return [
        (int(part), "") if part.isascii() and part.isdigit() else (-1, part)
        for part in _DIGITS.split(id)
    ]
