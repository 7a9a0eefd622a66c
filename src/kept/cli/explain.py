"""Why a piece of work does not run: what it waits for, who holds that, until when.

kept explain order-42
kept explain order-42 --json
"""

from __future__ import annotations

import argparse

from kept.cli.output import Output
from kept.cli.session import Session, in_session
from kept.protocol.inquiries import Explanation, TaskExplain


def add_arguments(parser: argparse.ArgumentParser, _everywhere: argparse.ArgumentParser) -> None:
    """The arguments of `kept explain`, which has no verbs."""
    parser.add_argument("id", metavar="ID", help="the work's promise")
    parser.set_defaults(run=in_session(_explain))


async def _explain(session: Session, arguments: argparse.Namespace) -> None:
    explained = await session.ask(TaskExplain(arguments.id), Explanation)
    if not session.output.json and not session.output.quiet:
        session.output.line(explained.text)
    session.show(explained, _details(explained, session.output))


def _details(explained: Explanation, output: Output) -> list[tuple[str, str]]:
    fields = [("also", reason.text) for reason in explained.reasons[1:]]
    first = explained.reasons[0]
    fields += [("until", output.exact(first.until))]
    holders = [holder for reason in explained.reasons for holder in reason.holders]
    fields += [
        ("held", f"{each.id} by {each.pid} until {output.exact(each.expires_at)}")
        for each in holders
    ]
    fields += [("awaits", f"{each.id}: {each.text}") for each in explained.awaits]
    workers = "" if explained.workers is None else str(explained.workers)
    fields += [
        ("state", explained.state.value),
        ("task", explained.task.value if explained.task is not None else ""),
        ("queue", explained.queue or ""),
        ("lane", explained.lane or ""),
        ("function", explained.function or ""),
        ("failures", str(explained.failures) if explained.failures else ""),
        ("workers", workers),
    ]
    return fields
