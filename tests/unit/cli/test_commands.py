"""The commands, over a real engine in this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kept.cli import promise as promise_commands
from kept.cli.main import main
from kept.engine.engine import Engine
from kept.protocol.inquiries import DeliveriesResult, PromiseDeliveries
from kept.protocol.records import EMPTY, PromiseState
from kept.protocol.requests import PromiseSettle
from kept.runtime import SystemRuntime
from kept.stores.memory import MemoryStore
from kept.transports.http import HttpPushTransport
from tests.unit.cli.conftest import Kept


def test_promise_from_create_to_get(kept: Kept) -> None:
    """Create, resolve and get, as text and as one JSON document."""
    created = kept("promise", "create", "a", "--timeout", "2d", "--param", "[1]", "--tag", "k=v")
    assert created.code == 0
    assert "param     [1]" in created.lines
    resolved = kept("promise", "resolve", "a", "--value", "yes")
    assert (resolved.code, resolved.out) == (0, "a resolved\n")
    record = json.loads(kept("--json", "promise", "get", "a").out)
    assert record == json.loads(kept("promise", "get", "a", "--json").out)
    assert record["state"] == "resolved"
    assert record["value"] == {"headers": {"kept-format": "1"}, "data": '"yes"'}
    assert record["timeoutAt"] - record["createdAt"] == pytest.approx(172_800_000, abs=10_000)
    assert record["tags"] == {"k": "v"}


def test_settling_again_is_told_from_settling(kept: Kept) -> None:
    """The same settlement again is fine; another state or value exits with 1 and changes nothing."""
    kept("promise", "create", "a")
    assert kept("promise", "resolve", "a", "--value", "1").code == 0
    assert kept("promise", "resolve", "a", "--value", "1").code == 0
    other = kept("promise", "resolve", "a", "--value", "2")
    assert (other.code, "with another value" in other.errors) == (1, True)
    cancel = kept("promise", "cancel", "a")
    assert (cancel.code, "was resolved already" in cancel.errors) == (1, True)


def test_refusals_exit_with_one_line_and_1(kept: Kept) -> None:
    """What the engine refuses is one line on standard error, and nothing on standard output."""
    for argv in (
        ("promise", "get", "missing"),
        ("promise", "create", "x", "--target", "nonsense"),
        ("task", "halt", "missing"),
        ("schedule", "create", "s", "not a cron"),
        ("dead", "get", "missing"),
        ("tree", "missing"),
    ):
        ran = kept(*argv)
        assert (ran.code, ran.out) == (1, ""), argv
        assert ran.errors.startswith("kept: "), argv
        assert ran.errors.count("\n") == 1, argv


def test_lists_are_limited_and_go_on(kept: Kept) -> None:
    """`--limit` stops and says how to go on; `--all` and `--cursor` go on; JSON is a line each."""
    for number in range(7):
        kept("promise", "create", f"p{number}")
    first = kept("promise", "search", "--limit", "3", "-q")
    assert first.lines == ["p0", "p1", "p2"]
    first = kept("promise", "search", "--limit", "3")
    assert "--cursor p2" in first.errors
    assert kept("promise", "search", "--cursor", "p2", "-q").lines == ["p3", "p4", "p5", "p6"]
    lines = kept("promise", "search", "--all", "--json").lines
    assert [json.loads(line)["id"] for line in lines] == [f"p{n}" for n in range(7)]
    kept("promise", "resolve", "p4")
    assert kept("promise", "search", "--state", "resolved", "-q").lines == ["p4"]


def test_task_is_halted_and_continued(kept: Kept) -> None:
    """Each verb reports the state that it led to."""
    kept("promise", "create", "job", "--target", "queue://q")
    assert kept("task", "halt", "job").out == "job halted\n"
    assert kept("task", "search", "--state", "halted").out.startswith("job\thalted\t")
    assert kept("task", "continue", "job").out == "job pending\n"
    assert json.loads(kept("task", "get", "job", "--json").out)["state"] == "pending"


def test_schedule_is_created_listed_and_deleted(kept: Kept) -> None:
    """The default template names the schedule and the instant."""
    created = kept("schedule", "create", "s", "0 3 * * *", "--target", "queue://q", "--json")
    assert json.loads(created.out)["promiseId"] == "{{.id}}.{{.timestamp}}"
    assert kept("schedule", "list", "-q").lines == ["s"]
    assert kept("schedule", "get", "s").code == 0
    assert kept("schedule", "delete", "s").out == "s deleted\n"
    assert kept("schedule", "list").out == ""


def test_dead_replay_of_nothing_says_so(kept: Kept) -> None:
    """Replaying what is not there exits with 1, and an empty list is no error."""
    assert kept("dead", "list", "--since", "1d").code == 0
    assert kept("dead", "replay", "missing").code == 1


def test_tree_by_origin_and_by_parents(kept: Kept) -> None:
    """Children are found by the origin, or where clients set none, by their parents."""
    for origin in (True, False):
        root = "with" if origin else "without"
        tags = ("--tag", f"resonate:origin={root}") if origin else ()
        kept("promise", "create", root)
        kept("promise", "create", f"{root}.1", "--tag", f"resonate:parent={root}", *tags)
        kept("promise", "create", f"{root}.1.1", "--tag", f"resonate:parent={root}.1", *tags)
        assert kept("tree", root, "-q").lines == [root, f"{root}.1", f"{root}.1.1"]
        lines = [json.loads(line)["id"] for line in kept("tree", root, "--json").lines]
        assert lines == [root, f"{root}.1", f"{root}.1.1"]
        assert len(kept("tree", root, "--depth", "1").lines) == 3
        assert "3 promises: 3 pending" in kept("tree", root).errors


def test_wait_ends_pending_with_1(kept: Kept) -> None:
    """`--wait` shows the record at its end, and says that it is not settled."""
    kept("promise", "create", "a", "--external")
    ran = kept("promise", "get", "a", "--wait", "10ms")
    assert (ran.code, "still pending" in ran.errors) == (1, True)
    kept("promise", "resolve", "a")
    assert kept("promise", "get", "a", "--wait", "10s").code == 0


@pytest.mark.parametrize(
    "argv",
    [
        ("promise",),
        ("promise", "get"),
        ("promise", "unknown", "x"),
        ("nonsense",),
        ("promise", "create", "x", "--timeout", "soon"),
        ("promise", "create", "x", "--tag", "novalue"),
        ("promise", "search", "--limit", "0"),
        ("tree", "x", "--depth", "-1"),
        ("--url",),
    ],
)
def test_wrong_usage_exits_with_2(argv: tuple[str, ...], kept: Kept) -> None:
    """And says so on standard error only."""
    ran = kept(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.errors


def test_unreachable_exits_with_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is not there, and a file that is not there, which a look must not create."""
    monkeypatch.chdir(tmp_path)
    assert main(["--url", "http://127.0.0.1:1", "promise", "get", "a"]) == 3
    complaint = capsys.readouterr().err
    assert complaint.startswith("kept: cannot reach http://127.0.0.1:1: connection refused")
    assert complaint.count("\n") == 1
    assert main(["--url", "sqlite:///nothing.db", "promise", "get", "a"]) == 3
    assert list(tmp_path.iterdir()) == []
    assert main(["--url", "nonsense", "promise", "get", "a"]) == 2


def test_interrupt_is_quiet(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and without a word."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promise_commands, "PromiseGet", interrupted)
    ran = kept("promise", "get", "a")
    assert (ran.code, ran.out, ran.errors) == (130, "", "")


def test_version(kept: Kept) -> None:
    """As a noun, as an option, and for programs."""
    assert kept("version").out == kept("--version").out
    assert set(json.loads(kept("version", "--json").out)) == {"kept", "protocol", "python"}


def test_cancel_asks_stops_and_tells_how_far_it_is(kept: Kept) -> None:
    """What has not begun is canceled at once; what is settled otherwise is not; JSON is the answer."""
    kept("promise", "create", "a", "--target", "queue://q")
    kept("promise", "create", "a.1", "--tag", "resonate:parent=a", "--tag", "resonate:origin=a")
    ran = kept("cancel", "a", "--reason", "no need")
    assert ran.code == 0
    assert ran.out == "a rejected_canceled; 0 descendants reached, and more follow\n"
    assert "kept cancel a" in ran.errors
    for _ in range(500):
        if json.loads(kept("promise", "get", "a.1", "--json").out)["state"] != "pending":
            break
    record = json.loads(kept("cancel", "a", "--json").out)
    assert record["promise"]["state"] == "rejected_canceled"
    assert record["promise"]["value"] == {"headers": {"kept-cancel-reason": "no need"}}
    assert kept("cancel", "a.1").out == "a.1 rejected_canceled\n"
    kept("promise", "create", "b")
    kept("promise", "resolve", "b")
    ran = kept("cancel", "b", "--force")
    assert (ran.code, "was resolved already" in ran.errors) == (1, True)
    assert kept("cancel", "missing").code == 1


def test_a_signal_is_numbered(kept: Kept) -> None:
    """Each is a message of its own, but under a key; what ended takes none."""
    kept("promise", "create", "a", "--external")
    assert kept("signal", "a", "box", "--value", "[1]").out == "sent as number 1\n"
    sent = [kept("--json", "signal", "a", "box", "--key", "k").out for _ in range(2)]
    assert sent == ['{"number":2}\n'] * 2
    record = json.loads(kept("--json", "promise", "get", "a!box.1").out)
    assert record["value"]["data"] == "[1]"
    assert kept("signal", "a", "No").code == 1
    kept("promise", "resolve", "a")
    assert "is resolved" in kept("signal", "a", "box").errors


def test_what_work_says_is_shown_and_searched(kept: Kept) -> None:
    """Of work that says nothing, nothing is shown."""
    kept("promise", "create", "a", "--external")
    shown = kept("promise", "state", "a")
    assert (shown.code, "pending" in shown.out) == (0, True)
    assert json.loads(kept("--json", "promise", "state", "a").out)["attributes"] == {}
    assert kept("-q", "promise", "search", "--attribute", "stage=packing").out == ""


def test_workers_and_functions_are_listed(kept: Kept) -> None:
    """Nobody is up: empty lists, and a function that nobody runs is refused."""
    assert kept("-q", "worker", "list").out == ""
    assert kept("-q", "function", "list").out == ""
    assert "no worker announces" in kept("function", "show", "pack").errors


def test_schedules_in_full(kept: Kept) -> None:
    """Put, paused, resumed, triggered, filled in; a rhythm and what is special are shown."""
    put = ("schedule", "put", "s", "--every", "1h", "--target", "queue://q", "--jitter", "5m")
    assert kept(*put, "--overlap", "skip", "--catchup", "none").code == 0
    shown = kept("schedule", "get", "s").out
    assert all(text in shown for text in ("every 1h", "5m", "skip", "none"))
    assert "(paused)" in kept("schedule", "pause", "s").out
    assert "(paused)" not in kept("schedule", "resume", "s").out
    assert kept("schedule", "trigger", "s", "--key", "k").out == "s.trigger.k fired\n"
    span = ("--from", "2026-01-01", "--to", "2026-01-01T05:00:00+01:00")
    assert kept("schedule", "backfill", "s", *span).out == "s is being filled in\n"
    assert kept("schedule", "put", "s", "0 3 * * *", "--zone", "Europe/Berlin").code == 0
    assert "0 3 * * * Europe/Berlin" in kept("schedule", "list").out
    assert kept("schedule", "put", "s").code != 0
    assert kept("schedule", "backfill", "s", "--from", "noon", "--to", "2026-01-01").code == 2


def test_explain_says_one_sentence_first(kept: Kept) -> None:
    """Why a job does not run, then what else is known; all of it as JSON; nothing for no promise."""
    kept("queue", "pause", "mail")
    kept("promise", "create", "mail-1", "--target", "queue://mail")
    ran = kept("explain", "mail-1")
    assert ran.code == 0
    assert ran.lines[0] == "Queue mail is paused; `kept queue resume mail` ends that."
    assert any(line.startswith("also") and "No worker announces" in line for line in ran.lines)
    told = json.loads(kept("--json", "explain", "mail-1").out)
    assert [reason["kind"] for reason in told["reasons"]] == ["paused", "no_worker", "line"]
    assert told["text"] == ran.lines[0]
    assert told["queue"] == "mail"
    assert kept("explain", "none").code == 1


def test_a_webhook_is_asked_for(kept: Kept) -> None:
    """Before the promise is settled; after that nothing will be sent, which is said."""
    kept("promise", "create", "p", "--external")
    url = "http://127.0.0.1:1/hook"
    assert kept("promise", "listen", "p", f"{url}?token=secret").lines == ["p pending"]
    assert kept("promise", "deliveries", "p").lines == []
    kept("promise", "resolve", "p")
    ran = kept("promise", "listen", "p", url)
    assert (ran.code, ran.lines) == (1, ["p resolved"])
    assert "nothing will be sent" in ran.errors
    assert kept("promise", "deliveries", "none").code == 1


async def _settle_and_try(store: MemoryStore) -> None:
    """An engine settles `p`, and runs until its webhook was tried."""
    runtime = SystemRuntime()
    engine = Engine(store, runtime, transports=(HttpPushTransport(runtime),))
    await engine.start()
    try:
        await engine.submit(PromiseSettle("p", PromiseState.RESOLVED, EMPTY))
        async with asyncio.timeout(10):
            while True:
                told = (await engine.submit(PromiseDeliveries("p"))).data
                if isinstance(told, DeliveriesResult) and told.deliveries:
                    return
                await asyncio.sleep(0)
    finally:
        await engine.stop()


def test_what_became_of_a_webhook_is_listed(kept: Kept, store: MemoryStore) -> None:
    """A line for each try: this address is private, so it is refused, and tried again."""
    kept("promise", "create", "p", "--external")
    kept("promise", "listen", "p", "http://127.0.0.1:1/hook?token=secret")
    asyncio.run(_settle_and_try(store))
    (line,) = kept("promise", "deliveries", "p").lines
    _, address, number, _, outcome, _ = line.split("\t")
    assert (address, number) == ("http://127.0.0.1:1/hook", "1")
    assert "127.0.0.1 is a private address, which is not allowed" in outcome
    told = json.loads(kept("--json", "promise", "deliveries", "p").out)
    assert told["error"] == outcome


def test_weights_of_lanes_and_names_of_queues(kept: Kept) -> None:
    """A weight is put and taken back; quietly, a list is the names."""
    put = ("queue", "put", "q", "--json")
    lanes = json.loads(kept(*put, "--weight", "a=3", "--weight", "b=2").out)["lanes"]
    assert lanes == {"a": {"weight": 3}, "b": {"weight": 2}}
    assert json.loads(kept(*put, "--weight", "a=none").out)["lanes"] == {"b": {"weight": 2}}
    for bad in ("none", "a", "a=0", "=3"):
        assert kept(*put, "--weight", bad).code == 2
    kept("queue", "pause", "r")
    assert kept("queue", "list", "-q").lines == ["q", "r"]


def test_how_long_results_of_a_queue_stay(kept: Kept) -> None:
    """Put, shown, taken back; ids are kept or not, and what is not named stays."""
    put = ("queue", "put", "q")
    queue = json.loads(kept(*put, "--retention", "30d", "--keep-ids", "--json").out)
    assert (queue["retention"], queue["keepIds"]) == (30 * 86_400_000, True)
    shown = kept("queue", "get", "q").out
    assert "30d" in shown
    assert "kept" in shown
    queue = json.loads(kept(*put, "--retention", "none", "--json").out)
    assert ("retention" in queue, queue["keepIds"]) == (False, True)
    queue = json.loads(kept(*put, "--no-keep-ids", "--json").out)
    assert "keepIds" not in queue
    assert kept(*put, "--retention", "1ms").code != 0
