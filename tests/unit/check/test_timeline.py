"""The timeline: one page, whole in itself, that tells what was found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kept.check import timeline
from kept.check.history import Fault, History, Recorder, load, parse
from kept.check.linearizability import check
from kept.check.protocol_model import ProtocolModel
from kept.check.sequential import RegisterModel

HISTORIES = Path(__file__).parent / "histories"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--virtual-time-budget=2000", "--dump-dom"),
)


def _history(name: str = "protocol_pending_after_settled") -> History:
    return load(HISTORIES / f"{name}.jsonl")


def _data(page: str) -> dict[str, object]:
    found = re.search(r"^const data = (.*);$", page, re.MULTILINE)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_loads_nothing() -> None:
    """No address of anything stands in the page: it works wherever the file is."""
    history = _history()
    page = timeline.page(history, check(history, ProtocolModel()))
    assert not re.search(r"https?://|//[a-z]+\.|\bsrc=|\bhref=|@import|url\(", page)


def test_the_page_tells_the_violation() -> None:
    """Verdict, first operation and reason are in the page, and every operation and fault is."""
    history = _history()
    history.faults.append(Fault(kind="crash", at=5, process="server"))
    data = _data(timeline.page(history, check(history, ProtocolModel())))
    assert data["verdict"] == "not linearizable"
    components = data["components"]
    assert isinstance(components, list)
    assert components[0]["first"] == history.header.about["first"]
    assert "pending" in components[0]["reason"]
    operations, faults = data["operations"], data["faults"]
    assert isinstance(operations, list)
    assert isinstance(faults, list)
    assert (len(operations), len(faults)) == (len(history.operations), 1)


def test_a_page_without_a_verdict_claims_none() -> None:
    """A history that was not judged can be drawn as well, and says nothing of a verdict."""
    assert _data(timeline.page(_history()))["verdict"] is None


def test_texts_in_the_data_are_texts() -> None:
    """Whatever clients wrote: nothing ends the script, becomes markup, or is long."""
    recorder = Recorder(lambda: 1.0)
    text = "</script><script>alert(1)</script><!--\u2028" + "x" * 5_000
    number = recorder.invoke(text, {"kind": "promise.get", "data": {"id": text}})
    recorder.answered(number, 404, text)
    history = recorder.history()
    page = timeline.page(history, check(history, ProtocolModel()))
    assert page.count("</script>") == 1
    assert "<script>alert" not in page
    assert "x" * (timeline.MAX_TEXT_CHARACTERS + 1) not in page


def test_a_long_history_is_shown_around_its_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more operations than a page holds, those near the violation are shown, and it says so."""
    monkeypatch.setattr(timeline, "MAX_SHOWN_OPERATIONS", 4)
    history = _history("register_many_concurrent_writes_wrong")
    data = _data(timeline.page(history, check(history, RegisterModel())))
    operations = data["operations"]
    assert isinstance(operations, list)
    assert history.header.about["first"] in [each["n"] for each in operations]
    assert data["leftOut"] == len(history.operations) - 4


def test_an_empty_history_has_a_page() -> None:
    """Nothing at all is drawn without an error."""
    history = parse([])
    assert _data(timeline.page(history, check(history, ProtocolModel())))["total"] == 0


def test_a_browser_runs_the_page(tmp_path: Path) -> None:
    """In a browser, if there is one here, the page's script runs to its end and tells the finding."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no browser is here")
    history = _history()
    path = tmp_path / "page.html"
    result = check(history, ProtocolModel())
    path.write_text(timeline.page(history, result), encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'browser'}", path.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    first = result.violations[0].first
    assert f"Operation #{first} cannot be linearized" in run.stdout
    assert "This is the first operation that fits nowhere." in run.stdout
