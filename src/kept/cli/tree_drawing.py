"""A call tree as lines, as a file manager shows folders: bounded in depth, width and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from kept.cli.output import Output, clean
from kept.cli.tree_nodes import Tree
from kept.protocol import tags as tag
from kept.protocol.records import PromiseRecord, PromiseState, TaskRecord, TaskState
from kept.protocol.spoken import spoken

_MARKS: Final = {
    PromiseState.PENDING: ("●", "*"),
    PromiseState.RESOLVED: ("✓", "+"),
    PromiseState.REJECTED: ("✗", "x"),
    PromiseState.REJECTED_CANCELED: ("⊘", "-"),
    PromiseState.REJECTED_TIMEDOUT: ("⏱", "t"),
}
# Columns are aligned up to here; what is longer sticks out alone.
_MAX_COLUMN: Final = 100


class Limits(msgspec.Struct, frozen=True):
    """How much is drawn; 0 for all."""

    depth: int = 32
    children: int = 50
    lines: int = 2_000


class Line(msgspec.Struct):
    """One line: a promise, or (`note`) what was left out."""

    prefix: str
    promise: PromiseRecord | None = None
    note: str = ""


class _Entry(msgspec.Struct):
    """A node whose turn has yet to come; `left_out` says that it stands for several."""

    id: str
    depth: int
    lead: str
    last: bool
    left_out: str = ""


class Drawing(msgspec.Struct):
    """What is drawn, where to, and what is known of the tasks."""

    tree: Tree
    output: Output
    limits: Limits
    tasks: dict[str, TaskRecord] = {}

    def print(self, lines: list[Line]) -> None:
        """Prints the lines with their states in a column, and a summary."""
        names = [line.prefix + clean(line.promise.id) if line.promise else "" for line in lines]
        width = min(max(map(len, names)), _MAX_COLUMN)
        for name, line in zip(names, lines, strict=True):
            if line.promise is None:
                self.output.line(line.prefix + self.output.dim(line.note))
            else:
                self.output.line(f"{name.ljust(width)}  {self._state(line)}".rstrip())
        total = self.tree.size_below(self.tree.root) + 1
        counts = _counted(promise for promise in self.tree.in_order())
        self.output.note(f"{total:,} promise{'s' if total > 1 else ''}: {counts}")

    def _state(self, line: Line) -> str:
        promise = line.promise
        assert promise is not None
        state = promise.state.value
        mark = _MARKS[promise.state][0 if self.output.boxes else 1]
        # A record may have been settled a moment after this clock was read, or by another clock.
        end = self.output.now_ms if promise.settled_at is None else promise.settled_at
        length = spoken(max(0, end - promise.created_at))
        if promise.settled_at is None:
            time = f"for {length}"
        else:
            time = f"in {length}, {self.output.instant(promise.settled_at)}"
        parts = [
            self.output.paint(f"{mark} {state}", state),
            time,
            clean(promise.tags.get(tag.FUNCTION, "")),
            self._work(promise),
            f"({clean(line.note)})" if line.note else "",
        ]
        return "  ".join(part for part in parts if part)

    def _work(self, promise: PromiseRecord) -> str:
        task = self.tasks.get(promise.id)
        if task is None or task.state is TaskState.FULFILLED:
            return ""
        if task.state is TaskState.ACQUIRED and task.pid:
            return f"acquired by {clean(task.pid)}"
        return f"task {task.state.value}"


def draw(drawing: Drawing) -> list[Line]:
    """The lines of a tree, within its limits."""
    tree, limits = drawing.tree, drawing.limits
    lines: list[Line] = []
    seen: set[str] = set()
    stack = [_Entry(tree.root, 0, "", last=True)]
    while stack:
        entry = stack.pop()
        if limits.lines and len(lines) >= limits.lines:
            lines.append(
                Line("", note=f"… stopped after {limits.lines:,} lines; --lines 0 for all")
            )
            break
        prefix, lead = _prefixes(entry, boxes=drawing.output.boxes)
        if entry.left_out:
            lines.append(Line(prefix, note=entry.left_out))
            continue
        promise = tree.promises[entry.id]
        if entry.id in seen:
            lines.append(Line(prefix, note=f"{clean(entry.id)} again: a circle"))
            continue
        seen.add(entry.id)
        lines.append(Line(prefix, promise, tree.astray.get(entry.id, "")))
        stack.extend(reversed(_below(drawing, entry, lead)))
    return lines


def _below(drawing: Drawing, entry: _Entry, lead: str) -> list[_Entry]:
    """The entries under a node, with one line for all that its limits leave out."""
    tree, limits = drawing.tree, drawing.limits
    children = tree.below(entry.id)
    if not children:
        return []
    depth = entry.depth + 1
    if limits.depth and depth > limits.depth:
        text = f"… {tree.size_below(entry.id):,} more below; --depth 0 for all"
        return [_Entry("", depth, lead, last=True, left_out=text)]
    shown = children[: limits.children] if limits.children else children
    rest = children[len(shown) :]
    entries = [_Entry(child, depth, lead, last=child == children[-1]) for child in shown]
    if rest:
        counts = _counted(tree.promises[child] for child in rest)
        text = f"… {len(rest):,} more: {counts}; --children 0 for all"
        entries.append(_Entry("", depth, lead, last=True, left_out=text))
    return entries


def _prefixes(entry: _Entry, *, boxes: bool) -> tuple[str, str]:
    """What stands before a node's name, and before its children's."""
    if entry.depth == 0:
        return "", ""
    corner, tee, bar = ("└─ ", "├─ ", "│  ") if boxes else ("`- ", "|- ", "|  ")
    if entry.last:
        return entry.lead + corner, entry.lead + "   "
    return entry.lead + tee, entry.lead + bar


def _counted(promises: Iterable[PromiseRecord]) -> str:
    counts = Counter(promise.state.value for promise in promises)
    return ", ".join(f"{counts[state]:,} {state}" for state in PromiseState if counts[state])
