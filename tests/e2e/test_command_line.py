"""The `kept` command as processes: a server, and people and scripts at its door."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

KEPT = [sys.executable, "-m", "kept.cli.main"]
START_SECONDS = 20.0
# For argparse and the table of nouns.
HELP_MS = 30


def environment(**more: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("KEPT_")}
    return {**kept, **more}


def run(*argv: str, url: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KEPT, *argv],
        env=environment(KEPT_URL=url),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server on a file."""
    directory = tmp_path_factory.mktemp("server")
    process = subprocess.Popen(
        [*KEPT, "serve", "--port", "0", "--store", "sqlite:///kept.db"],
        cwd=directory,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield _announced_url(process)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_SECONDS) == 0


def _announced_url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stderr], [], [], 0.1)
        line = process.stderr.readline() if ready else ""
        found = re.search(r"listening on (http://\S+)", line)
        if found:
            return found[1]
        assert process.poll() is None, line + process.stderr.read()
    raise AssertionError("the server did not start in time")


def test_commands_reach_the_server(server: str) -> None:
    """What one process creates another resolves and a third sees, with the exit codes of each."""
    assert run("promise", "create", "a", "--timeout", "1h", url=server).returncode == 0
    resolve = run("promise", "resolve", "a", "--value", "-", url=server, input='{"from": "stdin"}')
    assert (resolve.returncode, resolve.stdout) == (0, "a resolved\n")
    record = json.loads(run("--json", "promise", "get", "a", url=server).stdout)
    assert json.loads(record["value"]["data"]) == {"from": "stdin"}
    refused = run("promise", "get", "nothing", url=server)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert run("promise", "get", "a", url="http://127.0.0.1:1").returncode == 3
    assert run("promise", "git", "a", url=server).returncode == 2


def test_reader_that_stops_early_is_no_error(server: str) -> None:
    """`kept … | head` ends quietly."""
    run("promise", "create", "shown", url=server)
    process = subprocess.Popen(
        [*KEPT, "promise", "search", "--all", "--json"],
        env=environment(KEPT_URL=server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(20) == 0


def test_interrupt_of_a_wait_is_quiet(server: str) -> None:
    """Ctrl-C while a command waits: exit code 130, no traceback."""
    run("promise", "create", "waited", url=server)
    process = subprocess.Popen(
        [*KEPT, "promise", "get", "waited", "--wait", "1h"],
        env=environment(KEPT_URL=server),
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for_connection(process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(20) == 130


def _wait_for_connection(process: subprocess.Popen[str]) -> None:
    """Until the process holds a socket, which is when its own handling of signals stands."""
    descriptors = Path(f"/proc/{process.pid}/fd")
    if not descriptors.exists():
        pytest.skip("this system does not show a process's open files")
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if sum(_is_socket(link) for link in descriptors.iterdir()) > 2:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
            break
    raise AssertionError("the command never connected")


def _is_socket(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("socket:")
    except FileNotFoundError:
        # Closed since the directory was read.
        return False


def test_file_without_a_server(tmp_path: Path) -> None:
    """A command may go to the file itself, once it exists, and changes stay there."""
    url = f"sqlite:///{tmp_path}/kept.db"
    assert run("promise", "create", "a", url=url).returncode == 3
    process = subprocess.Popen(
        [*KEPT, "serve", "--port", "0", "--store", url],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        _announced_url(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(START_SECONDS) == 0
    assert run("promise", "create", "a", url=url).returncode == 0
    assert run("promise", "search", "-q", url=url).stdout == "a\n"


def test_port_that_is_taken_is_named(server: str) -> None:
    """A second server on the port ends with one line that says so."""
    port = server.rsplit(":", 1)[1]
    second = run("serve", "--port", port, "--store", "memory://", url=server)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr


SHOP = """
import os
import kept
app = kept.App(queue=os.environ["SHOP_QUEUE"])
@app.function
async def greet(name: str) -> str:
    return f"hello {name}"
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_worker_runs_an_app_until_it_is_stopped(
    number: signal.Signals, code: int, server: str, tmp_path: Path
) -> None:
    """`kept worker shop:app` finds the app in its directory, does its work, and ends on SIGTERM
    with 0 and on Ctrl-C with 130."""
    (tmp_path / "shop.py").write_text(SHOP)
    with subprocess.Popen(
        [*KEPT, "worker", "shop:app"],
        cwd=tmp_path,
        env=environment(KEPT_URL=server, SHOP_QUEUE=number.name),
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            id = f"greeting-{number.name}"
            arguments = json.dumps({"args": ["you"], "kwargs": {}})
            target = ("--target", f"queue://{number.name}", "--tag", "kept:function=greet@1")
            run("promise", "create", id, *target, "--param", arguments, url=server)
            done = run("promise", "get", id, "--wait", "20s", "--json", url=server)
            record = json.loads(done.stdout)
            assert (record["state"], record["value"].get("data")) == ("resolved", '"hello you"')
            worker.send_signal(number)
            assert worker.wait(20) == code
            assert worker.stderr is not None
            assert worker.stderr.read() == ""
        finally:
            worker.kill()


COUNT = 'n=$(cat count); echo $((n + 1)) > count; echo "$KEPT_FENCE" >> fences'


def test_locks_guard_commands_of_shells(server: str, tmp_path: Path) -> None:
    """Shells that read, add and write one file, all at one time, lose nothing under a lock, and
    their fences rise in the order of their turns."""
    (tmp_path / "count").write_text("0")
    command = [*KEPT, "lock", "run", "count", "--", "sh", "-c", COUNT]
    shells = [
        subprocess.Popen(command, cwd=tmp_path, env=environment(KEPT_URL=server)) for _ in range(4)
    ]
    assert [shell.wait(30) for shell in shells] == [0] * 4
    assert (tmp_path / "count").read_text() == "4\n"
    fences = [int(line) for line in (tmp_path / "fences").read_text().splitlines()]
    assert fences == sorted(set(fences))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
def test_a_lost_lock_ends_all_that_its_command_started(server: str) -> None:
    """The lock is taken away: the shell and what it started in the background end, by SIGKILL where
    nothing else helps, and kept says so with 125."""
    stubborn = "trap '' TERM; echo up; tail -f /dev/null & wait"
    with subprocess.Popen(
        [*KEPT, "lock", "run", "lost", "--ttl", "1s", "--", "sh", "-c", stubborn],
        env=environment(KEPT_URL=server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        assert holder.stdout.readline() == "up\n"
        assert run("lock", "release", "lost", url=server).returncode == 0
        # Its end is that of all who could write to it.
        assert holder.stdout.read() == ""
        assert holder.wait(START_SECONDS) == 125
        assert "no longer held" in holder.stderr.read()


def test_a_signal_reaches_the_command_under_a_lock(server: str) -> None:
    """SIGTERM goes on to the command, whose exit code stands, and the lock is free at once."""
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); "
        "print('up', flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [*KEPT, "lock", "run", "stopped", "--", sys.executable, "-c", code],
        env=environment(KEPT_URL=server),
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        waiting = run("lock", "run", "stopped", "--wait", "0s", "--", "true", url=server)
        assert waiting.returncode == 124
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(START_SECONDS) == 9
    assert run("lock", "run", "stopped", "--wait", "0s", "--", "true", url=server).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_terminal_belongs_to_the_command_under_a_lock(server: str) -> None:
    """The command reads from it, and Ctrl-C there ends it quietly with 130."""
    import pty

    # A shell in its place may lose a Ctrl-C that comes between two of its commands.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "print('got', input(), flush=True); signal.pause()"
    )
    command = [*KEPT, "lock", "run", "at", "--", sys.executable, "-c", code]
    screen, terminal = pty.openpty()
    # The first that a session opens becomes its own.
    on_terminal = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(terminal)]
    with subprocess.Popen(
        [*on_terminal, *command], env=environment(KEPT_URL=server), start_new_session=True
    ) as holder:
        try:
            os.write(screen, b"words\n")
            shown = b""
            while b"got words" not in shown:
                shown += os.read(screen, 1)
            os.write(screen, b"\x03")
            assert holder.wait(START_SECONDS) == 130
            os.set_blocking(screen, False)
            assert b"Traceback" not in os.read(screen, 10_000)
        finally:
            holder.kill()
            os.close(screen)
            os.close(terminal)


def test_processes_share_a_bucket(server: str) -> None:
    """What one takes another does not get."""
    take = ("bucket", "take", "mail", "--limit", "1", "--period", "1h", "--wait", "0s")
    assert run(*take, url=server).stdout == "mail: 1 taken, 0 left\n"
    refused = run(*take, url=server)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "mail" in refused.stderr


def test_processes_that_ask_at_one_time_run_a_command_once(server: str, tmp_path: Path) -> None:
    """All of them print what the one that ran it printed."""
    command = [*KEPT, "once", "run", "report", "--", "sh", "-c", "echo ran | tee -a runs; echo $$"]
    asking = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(KEPT_URL=server),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    printed = {process.communicate(timeout=30)[0] for process in asking}
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert len(printed) == 1
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_help_is_fast() -> None:
    """`kept --help` loads nothing heavy beyond what `import kept` loads, which has its own limit."""
    code = (
        "import sys, time, kept\n"
        "before, start = set(sys.modules), time.perf_counter()\n"
        "from kept.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print((time.perf_counter() - start) * 1000, file=sys.stderr)\n"
        "assert not {'aiohttp', 'msgspec', 'asyncio', 'uvicorn'} & (set(sys.modules) - before)"
    )
    times = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
        )
        times.append(float(done.stderr))
    assert min(times) < HELP_MS
