"""A history as one HTML page: who asked what when, what struck, and what cannot be explained.

The page is one file that loads nothing from anywhere. Clients are lanes, operations bars, faults
marks; the first operation that cannot be linearized stands out with its reason. The drawing itself
is `timeline.html`, a page whose data is filled in here.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from kept.check.history import History, Operation
from kept.check.incident import Incident
from kept.check.linearizability import ComponentResult, Result, Verdict

JsonObject: TypeAlias = dict[str, Any]

TEMPLATE: Final = Path(__file__).with_name("timeline.html")
TITLE_PLACE: Final = "<!--TITLE-->"
DATA_PLACE: Final = "/*DATA*/null"
# What a browser still draws at once; of a longer history, what is nearest to the violation.
MAX_SHOWN_OPERATIONS: Final = 20_000
# A longer text in a request or an answer is cut.
MAX_TEXT_CHARACTERS: Final = 2_000
MAX_SHOWN_COMPONENTS: Final = 20
MAX_SHOWN_KEYS: Final = 12


def page(history: History, result: Result | None = None, incident: Incident | None = None) -> str:
    """The page, with the checker's result and with the run that it is of where there is one."""
    data = msgspec.json.encode(_page_data(history, result, incident)).decode()
    # Nothing in the data may end the element that holds it.
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    title = html.escape(history.header.title or "History")
    template = TEMPLATE.read_text(encoding="utf-8")
    return template.replace(TITLE_PLACE, title).replace(DATA_PLACE, data)


def _page_data(
    history: History, result: Result | None, incident: Incident | None = None
) -> JsonObject:
    shown = _shown(history, result, incident)
    places = {index: place for place, index in enumerate(shown)}
    components = _components(result)
    component_of: dict[int, int] = {}
    order_of: dict[int, int] = {}
    for number, component in enumerate(components):
        component_of.update(dict.fromkeys(component.operations, number))
        order_of.update({index: place for place, index in enumerate(component.order)})
    return {
        "title": history.header.title or "History",
        "about": history.header.about,
        "origin": _origin(history),
        "skew": history.header.clock_skew_ms,
        "verdict": result.verdict.value if result is not None else None,
        "steps": result.steps if result is not None else 0,
        "skipped": result.skipped if result is not None else {},
        "total": len(history.operations),
        "leftOut": len(history.operations) - len(shown),
        "componentCount": len(result.components) if result is not None else 0,
        "components": [_component(component, places) for component in components],
        "operations": [
            _operation(history.operations[index], index, component_of, order_of) for index in shown
        ],
        "faults": history.faults,
        "incident": _cut(msgspec.to_builtins(incident)),
    }


def _components(result: Result | None) -> list[ComponentResult]:
    """Those worth telling about, first; violations before what is undecided."""
    if result is None:
        return []
    told = [*result.violations, *result.undecided][:MAX_SHOWN_COMPONENTS]
    fine = [each for each in result.components if each.verdict is Verdict.LINEARIZABLE]
    return [*told, *fine]


def _component(component: ComponentResult, places: dict[int, int]) -> JsonObject:
    if component.verdict is Verdict.LINEARIZABLE:
        return {"verdict": component.verdict.value}
    return {
        "verdict": component.verdict.value,
        "keys": _cut(component.keys[:MAX_SHOWN_KEYS]),
        "keyCount": len(component.keys),
        "operations": len(component.operations),
        "explained": len(component.order),
        "first": places.get(component.first) if component.first is not None else None,
        "reason": _cut(component.reason),
        "state": _cut(component.state),
        "last": [places[index] for index in component.order[-8:] if index in places],
    }


def _operation(
    operation: Operation, index: int, component_of: dict[int, int], order_of: dict[int, int]
) -> JsonObject:
    answer = operation.answer
    return {
        "n": index,
        "client": _cut(operation.client),
        "process": _cut(operation.process),
        "kind": _cut(operation.kind),
        "request": _cut(operation.data),
        "status": answer.status if answer is not None else None,
        "answer": _cut(answer.data) if answer is not None else None,
        "at": operation.invoked_at,
        "until": operation.returned_at,
        "from": operation.invoked,
        "to": operation.returned,
        "component": component_of.get(index),
        "order": order_of.get(index),
    }


def _shown(
    history: History, result: Result | None, incident: Incident | None = None
) -> Sequence[int]:
    """The operations that the page holds: all, or those around what is wrong."""
    total = len(history.operations)
    if total <= MAX_SHOWN_OPERATIONS:
        return range(total)
    violations = result.violations if result is not None else []
    center = next((each.first for each in violations if each.first is not None), 0)
    if not violations and incident is not None and incident.breakage is not None:
        at = _origin(history) + incident.breakage.at * 1_000
        center = sum(operation.invoked_at <= at for operation in history.operations)
    first = max(0, min(center - MAX_SHOWN_OPERATIONS // 2, total - MAX_SHOWN_OPERATIONS))
    return range(first, first + MAX_SHOWN_OPERATIONS)


def _origin(history: History) -> float:
    if history.header.origin_ms is not None:
        return history.header.origin_ms
    instants = [operation.invoked_at for operation in history.operations]
    return min([*instants, *(fault.at for fault in history.faults)], default=0.0)


def _cut(value: Any) -> Any:
    """The value with its long texts cut."""
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        return f"{value[:MAX_TEXT_CHARACTERS]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {_cut(name): _cut(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner) for inner in value]
    return value
