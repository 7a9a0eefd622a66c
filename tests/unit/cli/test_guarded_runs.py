"""`kept lock run`, `kept slot run`, `kept bucket take`: guards around commands of a shell."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from kept.cli.main import main
from kept.protocol.guard_requests import LockAcquire, SlotAcquire, SlotGet
from kept.protocol.responses import SlotResult
from kept.stores.memory import MemoryStore
from tests.unit.cli.conftest import Kept
from tests.unit.cli.test_guard_commands import TTL, ask
from tests.unit.engine.rig import ok, running


def write_fence(to: Path) -> list[str]:
    """A command that writes the fence which it was given, and ends with 7."""
    code = f"import os, pathlib; pathlib.Path({str(to)!r}).write_text(os.environ.get('KEPT_FENCE', ''))"
    return [sys.executable, "-c", f"{code}; raise SystemExit(7)"]


def acquired(store: MemoryStore, *requests: LockAcquire | SlotAcquire) -> None:
    """What others hold."""

    async def run() -> None:
        async with running(store, watched=False) as engine:
            for request in requests:
                assert (await engine.submit(request)).status == 200

    asyncio.run(run())


def test_a_command_runs_under_a_lock(kept: Kept, store: MemoryStore, tmp_path: Path) -> None:
    """It gets its fence, its exit code is the answer, and the lock is free afterwards."""
    fences = []
    for number in "ab":
        assert kept("lock", "run", "ledger", "--", *write_fence(tmp_path / number)).code == 7
        fences.append(int((tmp_path / number).read_text()))
    assert 0 < fences[0] < fences[1]
    lock = json.loads(kept("lock", "show", "ledger", "--json").out)
    assert lock == {"resource": "ledger", "fence": fences[1]}


def test_a_command_runs_under_a_slot(kept: Kept, store: MemoryStore, tmp_path: Path) -> None:
    """With what others leave of the limit, without a fence, and gives it back."""
    acquired(store, SlotAcquire("api", 2, "other", TTL))
    run = ("slot", "run", "api", "--limit", "2", "--wait", "0s", "--")
    for _ in range(2):
        assert kept(*run, *write_fence(tmp_path / "fence")).code == 7
    assert (tmp_path / "fence").read_text() == ""

    async def look() -> SlotResult:
        async with running(store, watched=False) as engine:
            return await ok(engine, SlotGet("api"), SlotResult)

    assert [each.holder for each in asyncio.run(look()).holders] == ["other"]


def test_what_is_not_had_in_time_runs_nothing(
    kept: Kept, store: MemoryStore, tmp_path: Path
) -> None:
    """Exit code 124 and a line that says why."""
    acquired(store, LockAcquire("ledger", "other", TTL), SlotAcquire("api", 1, "other", TTL))
    lock = kept("lock", "run", "ledger", "--wait", "0s", "--", *write_fence(tmp_path / "fence"))
    slot = ("slot", "run", "api", "--limit", "1", "--wait", "10ms", "--")
    for ran in (lock, kept(*slot, *write_fence(tmp_path / "fence"))):
        assert (ran.code, ran.out) == (124, "")
        assert ran.errors.startswith("kept: ")
    assert "other" in lock.errors
    assert not (tmp_path / "fence").exists()


def test_a_lost_lock_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator takes the lock away while the command runs: it is ended long before it would end
    by itself, and the exit code is 125."""
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    ask(url, SlotGet("nothing"))  # which creates the file
    marks = tmp_path / "marks"
    code = f"""
import signal, subprocess, sys
def ended(*_):
    open({str(marks)!r}, "a").write("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, ended)
command = [sys.executable, "-m", "kept.cli.main", "--url", {url!r}, "lock", "release", "ledger"]
subprocess.run(command, check=True)
signal.pause()
"""
    run = ("lock", "run", "ledger", "--ttl", "600ms", "--", sys.executable, "-c", code)
    assert main(["--url", url, *run]) == 125
    assert "kept: 'ledger': " in capsys.readouterr().err
    assert marks.read_text() == "ended"


@pytest.mark.parametrize(
    ("command", "code"), [(["/nothing/there"], 127), (["/"], 126), (["a\0b"], 126)]
)
def test_what_cannot_be_run_is_said_as_shells_do(kept: Kept, command: list[str], code: int) -> None:
    """And the lock is given back."""
    ran = kept("lock", "run", "ledger", "--", *command)
    assert ran.code == code
    assert ran.errors.startswith(f"kept: {command[0]}: ")
    assert kept("lock", "show", "ledger", "--json").out.find("holder") == -1


def test_a_signal_that_ended_the_command_shows(kept: Kept) -> None:
    """128 and its number, as in a shell."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert kept("lock", "run", "ledger", "--", sys.executable, "-c", code).code == 137


def test_a_double_dash_of_the_command_is_its_own(kept: Kept, tmp_path: Path) -> None:
    """The first one belongs to kept, all others reach the command."""
    code = f"import json, sys; json.dump(sys.argv[1:], open({str(tmp_path / 'argv')!r}, 'w'))"
    arguments = ["--ttl", "5s", "--", "--", "x"]
    ran = kept("lock", "run", "ledger", "--", sys.executable, "-c", code, *arguments)
    assert ran.code == 0
    assert json.loads((tmp_path / "argv").read_text()) == arguments


@pytest.mark.parametrize(
    "line",
    [
        "lock run ledger",
        "lock run ledger --",
        "lock run ledger true",
        "lock run -- ledger true",
        "lock run ledger --ttl 0s -- true",
        "lock run ledger --ttl 2d -- true",
        "lock run ledger --wait soon -- true",
        "slot run api -- true",
        "slot run api --limit 0 -- true",
        "slot run api --limit 1001 -- true",
        "bucket take mail",
        "bucket take mail --limit none",
        "bucket take mail --limit 5 --cost 6",
        "bucket take mail --limit 5 --period 0s",
        "bucket take mail --limit 5 --period 31d",
        "bucket take mail --limit 5 --burst 0",
    ],
)
def test_wrong_input_is_a_sentence(kept: Kept, line: str) -> None:
    """And exit code 2."""
    ran = kept(*line.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.errors.splitlines()[-1].startswith("kept")


def test_tokens_are_taken_or_refused(kept: Kept) -> None:
    """As many as the bucket holds; then it says when there are more, at once."""
    take = ("bucket", "take", "mail", "--limit", "2", "--period", "1h", "--wait", "5s")
    assert kept(*take).out == "mail: 1 taken, 1 left\n"
    granted = kept(*take, "--json")
    assert (granted.code, json.loads(granted.out)) == (
        0,
        {"key": "mail", "granted": True, "remaining": 0},
    )
    refused = kept(*take, "--json")
    answer = json.loads(refused.out)
    assert (refused.code, answer["granted"]) == (1, False)
    assert 1_700_000 < answer["retryAfter"] <= 1_800_000
    assert "'mail'" in refused.errors


def test_tokens_are_waited_for(kept: Kept) -> None:
    """Without --wait, as long as it takes."""
    take = ("bucket", "take", "mail", "--limit", "1", "--period", "50ms", "--burst", "3")
    assert kept(*take, "--cost", "3").out == "mail: 3 taken, 0 left\n"
    waited = kept(*take, "--cost", "2", "-q")
    assert (waited.code, waited.out) == (0, "")
