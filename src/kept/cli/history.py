"""Recorded histories: what clients asked and were answered, judged and drawn.

kept history check run.jsonl
kept history check run.jsonl --html run.html
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from kept.check.history import History, HistoryError, load
from kept.check.linearizability import DEFAULT_BUDGET_STEPS, Result, Verdict, check
from kept.check.protocol_model import ProtocolModel
from kept.check.sequential import OnceModel, RegisterModel
from kept.check.timeline import page
from kept.cli.failure import EXIT_OK, EXIT_REFUSED, UsageError
from kept.cli.output import Output, clean
from kept.protocol.codec import encode_json
from kept.runtime import SystemRuntime

_MODELS: Final[dict[str, type[Any]]] = {
    "protocol": ProtocolModel,
    "register": RegisterModel,
    "once": OnceModel,
}
_SHORT_CHARACTERS: Final = 400
_FEW_NAMES: Final = 8


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept history`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    one = verbs.add_parser(
        "check",
        help="is there one order of its operations that explains every answer?",
        description="Exit code 0: there is. 1: there is none, or the checker cannot tell.",
        parents=[everywhere],
    )
    one.add_argument("file", metavar="FILE", type=Path, help="a history as JSON lines")
    one.add_argument(
        "--html", metavar="OUT", type=Path, help="write a timeline: one page, no network"
    )
    one.add_argument(
        "--budget",
        type=int,
        default=DEFAULT_BUDGET_STEPS,
        metavar="STEPS",
        help=f"steps to search for each component ({DEFAULT_BUDGET_STEPS}), then say unknown",
    )
    one.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    history = _loaded(arguments.file)
    model = _MODELS.get(history.header.model)
    if model is None:
        raise UsageError(
            f"{arguments.file}: the model {history.header.model!r} is not one of"
            f" {', '.join(_MODELS)}"
        )
    result = check(history, model(), budget_steps=arguments.budget)
    if arguments.html is not None:
        _written(arguments.html, page(history, result))
    output = Output(SystemRuntime().now_ms(), json=arguments.json, quiet=arguments.quiet)
    if output.json:
        output.document(_summary(history, result))
    elif output.quiet:
        output.line(result.verdict.value)
    else:
        _tell(output, history, result)
    if arguments.html is not None:
        output.note(f"wrote {arguments.html}")
    return EXIT_OK if result.verdict is Verdict.LINEARIZABLE else EXIT_REFUSED


def _loaded(path: Path) -> History:
    try:
        return load(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except HistoryError as error:
        raise UsageError(f"{path} is no history: {error}") from None


def _written(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _tell(output: Output, history: History, result: Result) -> None:
    colour = {Verdict.LINEARIZABLE: "resolved", Verdict.NOT_LINEARIZABLE: "rejected"}
    verdict = output.paint(result.verdict.value, colour.get(result.verdict, "pending"))
    judged = len(history.operations) - sum(result.skipped.values())
    output.line(
        f"{verdict}: {judged} operations in {len(result.components)} components,"
        f" {result.steps} steps"
    )
    for violation in result.violations:
        assert violation.first is not None
        operation = history.operations[violation.first]
        assert operation.answer is not None
        output.line("")
        output.details(
            [
                ("operation", f"#{violation.first} {operation.kind} of {operation.client}"),
                ("fits nowhere", violation.reason),
                ("request", _short(operation.data)),
                ("answer", f"{operation.answer.status} {_short(operation.answer.data)}"),
                ("explained", f"{len(violation.order)} operations before it"),
                ("state then", _short(violation.state)),
            ]
        )
    for undecided in result.undecided:
        output.line("")
        output.details([("not judged", _names(undecided.keys)), ("because", undecided.reason)])
    if result.skipped:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(result.skipped.items()))
        output.line(output.dim(clean(f"left out: {kinds}")))


def _summary(history: History, result: Result) -> dict[str, Any]:
    told = [*result.violations, *result.undecided]
    return {
        "verdict": result.verdict.value,
        "operations": len(history.operations),
        "components": len(result.components),
        "steps": result.steps,
        "skipped": result.skipped,
        "findings": [
            {
                "verdict": each.verdict.value,
                "keys": each.keys,
                "first": each.first,
                "reason": each.reason,
                "order": each.order,
                "state": each.state,
            }
            for each in told
        ],
    }


def _short(value: Any) -> str:
    text = encode_json(value).decode()
    return text if len(text) <= _SHORT_CHARACTERS else f"{text[:_SHORT_CHARACTERS]}…"


def _names(keys: Sequence[str]) -> str:
    more = "" if len(keys) <= _FEW_NAMES else f" and {len(keys) - _FEW_NAMES} more"
    return ", ".join(keys[:_FEW_NAMES]) + more
