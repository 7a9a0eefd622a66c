"""Histories with known verdicts: what the checker must accept, and what it must find, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kept.check.history import load
from kept.check.linearizability import check
from kept.check.protocol_model import ProtocolModel
from kept.check.sequential import OnceModel, RegisterModel

CORPUS = sorted((Path(__file__).parent / "histories").glob("*.jsonl"))
MODELS: dict[str, Any] = {
    "register": RegisterModel(),
    "once": OnceModel(),
    "protocol": ProtocolModel(),
}
FEWEST = 40


def test_the_corpus_is_there() -> None:
    """The corpus holds enough histories of either verdict."""
    verdicts = [load(path).header.about["verdict"] for path in CORPUS]
    assert len(verdicts) >= FEWEST
    assert min(verdicts.count("linearizable"), verdicts.count("not linearizable")) >= FEWEST // 3


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_known_history_gets_its_verdict(path: Path) -> None:
    """The verdict is the one that the file tells, and so is the first operation that fits nowhere;
    its reason is told, and the prefix before it is explained by an order."""
    history = load(path)
    result = check(history, MODELS[history.header.model])
    about = history.header.about
    found = [violation.first for violation in result.violations]
    reasons = [each.reason for each in (*result.violations, *result.undecided)]
    assert (result.verdict.value, found) == (
        about["verdict"],
        [about["first"]] if "first" in about else [],
    ), reasons
    assert all(reasons)
    for violation in result.violations:
        assert violation.first is not None
        before = history.operations[violation.first].returned
        assert before is not None
        must = {
            index
            for index in violation.operations
            if (returned := history.operations[index].returned) is not None and returned < before
        }
        assert must <= set(violation.order)
        assert violation.first not in violation.order


def test_a_reason_names_what_differs() -> None:
    """The reason for a violation names what differs, not only that something does."""
    path = next(path for path in CORPUS if path.stem == "protocol_pending_after_settled")
    history = load(path)
    reason = check(history, ProtocolModel()).violations[0].reason
    assert "promise.state: expected 'resolved', got 'pending'" in reason
