"""Tasks: the work behind promises, each held by one worker at a time.

kept task search --state halted
kept task halt order-42
kept task continue order-42
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kept.cli.output import Row
from kept.cli.session import Session, add_listing, in_session
from kept.protocol.records import TaskRecord, TaskState
from kept.protocol.requests import TaskContinue, TaskGet, TaskHalt, TaskSearch
from kept.protocol.responses import Nothing, TaskPage, TaskResult


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept task`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb, text, command in (
        ("get", "show a task", _get),
        ("halt", "stop a task until it is continued", _halt),
        ("continue", "let a halted task go on", _continue),
    ):
        one = verbs.add_parser(verb, help=text, parents=[everywhere])
        one.add_argument("id", metavar="ID")
        one.set_defaults(run=in_session(command))
    search = verbs.add_parser("search", help="list tasks by id", parents=[everywhere])
    search.add_argument("--state", choices=[state.value for state in TaskState])
    add_listing(search)
    search.set_defaults(run=in_session(_search))


async def _get(session: Session, arguments: argparse.Namespace) -> None:
    task = (await session.ask(TaskGet(arguments.id), TaskResult)).task
    fields = [
        ("id", task.id),
        ("state", task.state.value),
        ("version", str(task.version)),
        ("resumes", str(task.resumes)),
        ("worker", task.pid or ""),
        ("lease", "" if task.ttl is None else f"{task.ttl}ms"),
    ]
    session.show(task, fields)


async def _halt(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(TaskHalt(arguments.id), Nothing)
    await _report(session, arguments.id)


async def _continue(session: Session, arguments: argparse.Namespace) -> None:
    await session.ask(TaskContinue(arguments.id), Nothing)
    await _report(session, arguments.id)


async def _report(session: Session, id: str) -> None:
    task = (await session.ask(TaskGet(id), TaskResult)).task
    session.done(f"{task.id} {task.state.value}", task)


async def _search(session: Session, arguments: argparse.Namespace) -> None:
    state = TaskState(arguments.state) if arguments.state else None

    async def page(rows: int, cursor: str | None) -> tuple[Sequence[Any], str | None]:
        found = await session.ask(TaskSearch(state, rows, cursor), TaskPage)
        return found.tasks, found.cursor

    def row(task: TaskRecord) -> Row:
        return (task.id, task.state.value, str(task.version), str(task.resumes), task.pid or "")

    await session.listing(arguments, page, ("ID", "STATE", "VERSION", "RESUMES", "WORKER"), row)
