"""Shows the call tree of a promise: what it called, what is done, what it waits for.

kept tree order-42
kept tree order-42 --depth 3 --children 10
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Final

from kept.cli.session import Session, every_page, in_session
from kept.cli.tree_drawing import Drawing, Limits, draw
from kept.cli.tree_nodes import build_tree
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_SEARCH_ROWS
from kept.protocol.records import PromiseRecord, PromiseState, TaskRecord
from kept.protocol.requests import PromiseGet, PromiseSearch, TaskGet
from kept.protocol.responses import PromisePage, PromiseResult, TaskResult

# What is held in memory of one tree; more is said, not loaded.
MAX_NODES: Final = 200_000
# Tasks that are looked up to say who works on what is shown.
MAX_TASKS: Final = 256
_DEFAULTS: Final = Limits()


def add_arguments(parser: argparse.ArgumentParser, _everywhere: argparse.ArgumentParser) -> None:
    """The arguments of `kept tree`; 0 means no limit."""
    parser.add_argument("id", metavar="ID")
    for option, default, text in (
        ("--depth", _DEFAULTS.depth, "levels below the root"),
        ("--children", _DEFAULTS.children, "children of one promise"),
        ("--lines", _DEFAULTS.lines, "lines in all"),
    ):
        parser.add_argument(
            option, type=_bound, default=default, metavar="N", help=f"{text} ({default}; 0 for all)"
        )
    parser.set_defaults(run=in_session(_tree))


async def _tree(session: Session, arguments: argparse.Namespace) -> None:
    root = (await session.ask(PromiseGet(arguments.id), PromiseResult)).promise
    nodes, complete = await _load(session, root)
    tree = build_tree(root.id, nodes)
    output = session.output
    if output.quiet or output.json:
        for promise in tree.in_order():
            if output.quiet:
                output.line(promise.id)
            else:
                output.document(promise)
    else:
        limits = Limits(arguments.depth, arguments.children, arguments.lines)
        drawing = Drawing(tree, output, limits)
        lines = draw(drawing)
        drawing.tasks = await _tasks(session, [line.promise for line in lines if line.promise])
        drawing.print(lines)
    if not complete:
        output.note(f"kept: the tree is larger than {MAX_NODES} promises; the rest is not shown")


async def _load(session: Session, root: PromiseRecord) -> tuple[dict[str, PromiseRecord], bool]:
    """All promises of the root's origin, else all that name it and each other as parents."""
    origin = root.tags.get(tag.ORIGIN, root.id)
    nodes = {root.id: root}
    complete = await _collect(session, {tag.ORIGIN: origin}, nodes)
    level = [root.id] if len(nodes) == 1 else []
    while level and complete:
        known = set(nodes)
        for parent in level:
            complete = complete and await _collect(session, {tag.PARENT: parent}, nodes)
        level = [id for id in nodes if id not in known]
    return nodes, complete


async def _collect(session: Session, tags: dict[str, str], nodes: dict[str, PromiseRecord]) -> bool:
    async def page(cursor: str | None) -> tuple[list[PromiseRecord], str | None]:
        request = PromiseSearch(None, tags, MAX_SEARCH_ROWS, cursor)
        found = await session.ask(request, PromisePage)
        return found.promises, found.cursor

    async for promise in every_page(page):
        if len(nodes) >= MAX_NODES:
            return False
        nodes[promise.id] = promise
    return True


async def _tasks(session: Session, shown: list[PromiseRecord]) -> dict[str, TaskRecord]:
    """The tasks of pending promises that are shown, so far as they are few."""
    pending = [
        promise.id
        for promise in shown
        if promise.state is PromiseState.PENDING and tag.TARGET in promise.tags
    ]
    answers = await asyncio.gather(
        *(session.connection.send(TaskGet(id)) for id in pending[:MAX_TASKS])
    )
    return {
        answer.data.task.id: answer.data.task
        for answer in answers
        if isinstance(answer.data, TaskResult)
    }


def _bound(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)
