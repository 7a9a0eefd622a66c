"""`kept enqueue`: a function started by its name."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kept.contract.store_samples import write
from kept.machine.trees import kept_key
from kept.protocol.entries import Entry, KeptId
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState
from kept.protocol.storage import Changes
from kept.stores.memory import MemoryStore
from tests.unit.cli.conftest import Kept


def enqueued(kept: Kept, *argv: str) -> dict[str, Any]:
    ran = kept("--json", "enqueue", *argv)
    assert (ran.code, ran.errors) == (0, "")
    record: dict[str, Any] = json.loads(ran.out)
    return record


def test_arguments_by_name_and_by_position(kept: Kept, tmp_path: Any) -> None:
    """JSON where it is some, else text; from files too."""
    file = tmp_path / "note.txt"
    file.write_text("hello")
    record = enqueued(kept, "job", "a=1", "b=two", 'c="3"', "d=", f"e=@{file}", "f=x=y")
    assert json.loads(record["param"]["data"])["kwargs"] == {
        "a": 1,
        "b": "two",
        "c": "3",
        "d": "",
        "e": "hello",
        "f": "x=y",
    }
    record = enqueued(kept, "job", "c=3", "--args", "[1, 2]")
    assert json.loads(record["param"]["data"]) == {"args": [1, 2], "kwargs": {"c": 3}}
    record = enqueued(kept, "job", "c=3", "--args", '{"b": 2}')
    assert json.loads(record["param"]["data"]) == {"args": [], "kwargs": {"b": 2, "c": 3}}


def test_id_and_deadline(kept: Kept) -> None:
    """As they are given, else a new id and no deadline."""
    record = enqueued(kept, "job", "--id", "j", "--timeout", "1h")
    assert record["id"] == "j"
    assert 3_500_000 < record["timeoutAt"] - record["createdAt"] < 3_700_000
    record = enqueued(kept, "job")
    assert (len(record["id"]), record["timeoutAt"]) == (32, NEVER_MS)


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        (("--attempts", "5"), {"kept:attempts": "5", "kept:backoff": "full_jitter:1000:900000"}),
        (("--backoff", "fixed:5s"), {"kept:backoff": "fixed:5000"}),
        (("--backoff", "linear:1s:1m"), {"kept:backoff": "linear:1000:60000"}),
        (("--priority", "7", "--lane", "ann"), {"kept:priority": "7", "kept:lane": "ann"}),
        (("--tag", "kept:audit-event=e", "--tag", "a=b=c"), {"kept:audit-event": "e", "a": "b=c"}),
        (("--exhausted", "halt"), {"kept:exhausted": "halt"}),
        (("--queue", "bulk"), {"resonate:target": "queue://bulk"}),
        (("--at", "2100-01-01"), {"resonate:delay": "4102444800000"}),
        (
            ("--debounce", "d", "--delay", "1h", "--debounce-longest", "2h"),
            {
                "kept:debounce": "d",
                "kept:debounce-mode": "postpone",
                "kept:debounce-max": "7200000",
            },
        ),
        (
            ("--singleton", "return", "--singleton-key", "s"),
            {"kept:singleton": "return", "kept:singleton-key": "s"},
        ),
        (
            ("--dedupe", "k", "--dedupe-window", "1d"),
            {"kept:dedupe": "k", "kept:dedupe-window": "86400000"},
        ),
    ],
)
def test_options_are_tags(kept: Kept, options: tuple[str, ...], tags: dict[str, str]) -> None:
    """Each of them, as the protocol says it."""
    found = enqueued(kept, "job@2", *options)["tags"]
    assert tags.items() <= found.items()
    assert found["kept:function"] == "job@2"


def test_the_same_work_is_shown(kept: Kept) -> None:
    """What stands for it already, and that it does; `--wait` says so where it is not settled."""
    first = enqueued(kept, "job", "--id", "a", "--dedupe", "k")
    again = kept("--json", "enqueue", "job", "--id", "b", "--dedupe", "k")
    assert json.loads(again.out) == first
    assert again.errors == "kept: a stands for it\n"
    waited = kept("enqueue", "job", "--id", "a", "--wait", "1ms")
    assert (waited.code, waited.errors) == (1, "kept: a is still pending\n")


def test_what_has_left_says_so(kept: Kept, store: MemoryStore) -> None:
    """Of an id that is kept the verdict is shown, and since when there is no more."""
    kept("queue", "put", "default", "--keep-ids")
    key = kept_key("a")
    known = KeptId(PromiseState.REJECTED, NEVER_MS, 1_000, 2_000, 604_802_000)
    asyncio.run(write(store, Changes(entries={key: Entry(key, known)})))
    ran = kept("enqueue", "job", "--id", "a")
    assert (ran.code, ran.lines[:2]) == (0, ["id        a", "state     rejected"])
    assert ran.errors.startswith(
        "kept: a ended (rejected) at 1970-01-01T00:00:02.000Z, and does not"
    )
    assert "was kept for 7d, the retention of its queue" in ran.errors


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("novalue",), "novalue: write PARAMETER=VALUE"),
        (("--args", "5"), "--args: write a JSON array, or an object"),
        (("--args", "{"), "--args: is no JSON"),
        (("--priority", "10"), "priority: must be a whole number from 0 to 9, not 10"),
        (("--attempts", "0"), "--attempts: must be a whole number from 1 to 1000, not 0"),
        (("--attempts", "1001"), "--attempts: must be a whole number from 1 to 1000, not 1001"),
        (("--backoff", "soon"), "--backoff soon: write fixed:5s"),
        (("--backoff", "fixed:x"), "--backoff: 'x' is not a duration"),
        (("--delay", "5s", "--at", "2100-01-01"), "delay: cannot go with at"),
        (("--delay", "5s", "--timeout", "5s"), "delay: the work would begin only when"),
        (("--queue", "a b"), "queue: must be a name without blanks"),
        (("--debounce", "k"), "--debounce: needs --delay"),
        (("--debounce-longest", "5s"), "--debounce-mode and --debounce-longest need --debounce"),
        (("--singleton-key", "k"), "--singleton-key: needs --singleton"),
        (("--dedupe-window", "5s"), "dedupe_window: needs dedupe"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(
    kept: Kept, options: tuple[str, ...], error: str
) -> None:
    """In one line that names the option; nothing is started."""
    ran = kept("enqueue", "job", *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.errors.startswith(f"kept: {error}")
    assert kept("promise", "search").out == ""
