"""The contract that every official client of the protocol must see, and what it needs to run.

`ClientContract` holds the tests. Each official client is one `Kit`: how to start its worker
program and its client program, which offer the same functions and the same commands and print
their events as JSON lines. The modules `test_official_*.py` make the kits.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

#: How long anything here may take. Nothing waits for it unless something is broken.
PATIENCE = 40.0

Event = dict[str, Any]


@contextlib.contextmanager
def shared(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A directory that all processes of this test run share, and whether to fill it now.

    One process at a time is inside; it is filled when one has left without an exception.
    """
    base = factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    filled = directory.with_suffix(".filled")
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory, not filled.exists()
        filled.touch()


def until(what: str, check: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Ask `check` again and again until it answers something true."""
    end = time.monotonic() + patience
    between_questions = threading.Event()
    while time.monotonic() < end:
        answer = check()
        if answer:
            return answer
        between_questions.wait(0.02)
    raise AssertionError(f"waited {patience:.0f} s in vain for {what}")


class Program:
    """A running program and the events it has printed."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.command = list(command)
        self.events: list[Event] = []
        self.noise: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_noise, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                self.noise.append(line)
                continue
            with self._news:
                self.events.append(event)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _read_noise(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.noise.append(line)

    def wait_for(self, *names: str, count: int = 1) -> Event:
        """The `count`-th event of these names, past or to come."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while True:
                found = [event for event in self.events if event.get("event") in names]
                if len(found) >= count:
                    return found[count - 1]
                ended = self._process.poll() is not None and not self._readers[0].is_alive()
                if ended or time.monotonic() > end:
                    why = "the program ended" if ended else f"{PATIENCE:.0f} s passed"
                    raise AssertionError(f"no {'/'.join(names)} event: {why}\n{self.story()}")
                self._news.wait(0.2)

    def named(self, name: str, count: int = 0) -> list[Event]:
        """All events of this name so far, once there are at least `count`."""
        if count:
            self.wait_for(name, count=count)
        with self._news:
            return [event for event in self.events if event.get("event") == name]

    def story(self) -> str:
        return "\n".join(
            [" ".join(self.command), *map(json.dumps, self.events[-40:]), *self.noise[-40:]]
        )

    def kill(self) -> None:
        """SIGKILL: the program gets no chance to say or hand back anything."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for reader in self._readers:
            reader.join(PATIENCE)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class Server:
    """`kept serve` as its own process, on one port and one file for its whole life."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = self._start()

    def _start(self) -> Program:
        command = [sys.executable, "-m", "kept.cli.main", "serve"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--store", "sqlite:///kept.db"]
        program = Program(command, self.directory, {})
        try:
            until("the server to be ready", self._ready)
        except AssertionError as late:
            program.close()
            raise AssertionError(f"{late}\n{program.story()}") from None
        return program

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def restart(self) -> None:
        """SIGKILL and start again over the same file and port."""
        self.process.kill()
        self.process.close()
        self.process = self._start()

    def ask(self, kind: str, **data: Any) -> tuple[int, Any]:
        """One request of the protocol: its status and its data."""
        head = {"corrId": uuid.uuid4().hex, "version": "2026-04-01"}
        body = json.dumps({"kind": kind, "head": head, "data": data}).encode()
        request = urllib.request.Request(f"{self.url}/", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                envelope = json.load(answer)
        except urllib.error.HTTPError as refusal:
            envelope = json.load(refusal)
        return envelope["head"]["status"], envelope["data"]

    def promise(self, id: str) -> Any:
        status, data = self.ask("promise.get", id=id)
        assert status == 200, data
        return data["promise"]

    def tagged(self, **tags: str) -> list[Any]:
        """Every promise with these tags, named without their `resonate:`."""
        wanted = {f"resonate:{name}": value for name, value in tags.items()}
        status, data = self.ask("promise.search", tags=wanted, limit=1000)
        assert status == 200, data
        return list(data["promises"])


def decoded(value: Mapping[str, Any]) -> Any:
    """What a client put into a `param` or `value`."""
    data = value.get("data")
    return json.loads(base64.b64decode(data)) if data else None


@dataclass
class Kit:
    """One official client: how its two programs are started."""

    worker_command: list[str]
    client_command: list[str]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Bench:
    """A server and the programs of one test."""

    kit: Kit
    server: Server
    _stack: contextlib.ExitStack
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, command: list[str], group: str, **settings: object) -> Program:
        env = {"KEPT_URL": self.server.url, "KEPT_GROUP": group, **self.kit.env}
        env |= {f"KEPT_{name.upper()}": str(value) for name, value in settings.items()}
        env.setdefault("KEPT_PID", f"p{next(self._numbers)}-{uuid.uuid4().hex[:8]}")
        program = Program(command, self.kit.cwd, env)
        self._stack.callback(program.close)
        return program

    def worker(self, group: str, **settings: object) -> Program:
        """A worker of this group that is connected."""
        program = self.start(self.kit.worker_command, group, **settings)
        program.wait_for("connected")
        return program

    def client(self, *words: object, group: str = "clients", **settings: object) -> Program:
        command = self.kit.client_command + [
            word if isinstance(word, str) else json.dumps(word) for word in words
        ]
        return self.start(command, group, **settings)

    def value(self, *words: object, **settings: Any) -> Any:
        """What this client command answers; an error fails the test."""
        program = self.client(*words, **settings)
        end = program.wait_for("result", "error")
        assert end["event"] == "result", program.story()
        return end["value"]

    def refusal(self, *words: object, **settings: Any) -> str:
        """The message of the error in which this client command must end."""
        program = self.client(*words, **settings)
        end = program.wait_for("result", "error")
        assert end["event"] == "error", program.story()
        return str(end["message"])


@contextlib.contextmanager
def bench_for(kit: Kit, directory: Path) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        server = Server(directory)
        stack.callback(lambda: server.process.close())
        yield Bench(kit, server, stack)


class ClientContract:
    """What works for an official client, unchanged, against `kept serve`."""

    def test_run(self, bench: Bench) -> None:
        """A function run in the calling process returns its value, and each step is kept."""
        assert bench.value("run", "run", "steps", [3]) == ["step-0", "step-1", "step-2"]
        root = bench.server.promise("run")
        assert root["state"] == "resolved"
        assert decoded(root["value"]) == ["step-0", "step-1", "step-2"]
        steps = bench.server.tagged(parent="run", scope="local")
        assert sorted(decoded(s["value"]) for s in steps) == ["step-0", "step-1", "step-2"]
        assert bench.server.ask("task.get", id="run")[1]["task"]["state"] == "fulfilled"

    def test_rpc(self, bench: Bench) -> None:
        """A call by name reaches a worker in another process and its value comes back."""
        worker = bench.worker("sums")
        assert bench.value("rpc", "rpc", "add", [40, 2], "sums") == 42
        assert [event["id"] for event in worker.named("ran", 1)] == ["rpc"]

    def test_rpc_before_any_worker(self, bench: Bench) -> None:
        """A call waits for a worker that comes later."""
        client = bench.client("rpc", "early", "add", [1, 2], "late")
        until("the promise", lambda: bench.server.ask("promise.get", id="early")[0] == 200)
        assert not client.named("result")
        bench.worker("late")
        assert client.wait_for("result", "error")["value"] == 3

    def test_rpc_from_a_workflow(self, bench: Bench) -> None:
        """A workflow in one group fans out to another group and gathers every answer."""
        caller, callee = bench.worker("callers"), bench.worker("callees")
        pairs = [[n, n] for n in range(20)]
        answer = bench.value("rpc", "fan", "remote", ["callees", pairs], "callers")
        assert answer == [2 * n for n in range(20)]
        assert len(callee.named("ran", 20)) == 20
        assert not caller.named("ran")

    @pytest.mark.parametrize(
        "value",
        [None, "", 0, [], "søster 日本 🎈 \u2028 \x85", {"deep": [{"er": [None, 1.5, True]}]}],
        ids=["none", "empty", "zero", "list", "unicode", "nested"],
    )
    def test_values(self, bench: Bench, value: Any) -> None:
        """Values pass through param, message and value unchanged."""
        bench.worker("values")
        assert bench.value("rpc", "value", "echo", [value], "values") == value

    def test_a_large_value(self, bench: Bench) -> None:
        """A value of a hundred kilobytes passes through the poll stream in one piece."""
        bench.worker("values")
        value = "å" * 50_000
        # Given at the worker's side, since a command line has its limits.
        bench.server.ask(
            "promise.create",
            id="large",
            timeoutAt=9_007_199_254_740_991,
            param={
                "data": base64.b64encode(
                    json.dumps(
                        {"func": "echo", "args": [value], "kwargs": {}, "version": 1}
                    ).encode()
                ).decode()
            },
            tags={"resonate:target": "poll://any@values", "resonate:origin": "large"},
        )
        assert bench.value("get", "large") == value

    def test_an_unusual_id(self, bench: Bench) -> None:
        """Ids with blanks, dots, slashes and letters of any script work from end to end."""
        bench.worker("ids")
        id = "my.app/Größe 1 — 日本"
        assert bench.value("rpc", id, "steps", [2], "ids") == ["step-0", "step-1"]
        assert bench.server.promise(id)["state"] == "resolved"

    def test_an_unusual_group(self, bench: Bench) -> None:
        """A group's name may hold blanks and letters of any script."""
        bench.worker("größe eins")
        assert bench.value("rpc", "group", "add", [1, 1], "größe eins") == 2

    def test_sleep(self, bench: Bench) -> None:
        """A sleep lasts at least its time, wakes its workflow, and is no work for anyone."""
        worker = bench.worker("sleepers")
        default = bench.worker("default")  # where some clients address their timers
        assert bench.value("rpc", "nap", "nap", [300, 2], "sleepers") == "rested"
        root = bench.server.promise("nap")
        assert root["settledAt"] - root["createdAt"] >= 600
        assert [event["name"] for event in worker.named("step", 2)] == ["woke-0", "woke-1"]
        timers = bench.server.tagged(origin="nap", timer="true")
        assert [timer["state"] for timer in timers] == ["resolved", "resolved"]
        assert all(timer["settledAt"] == timer["timeoutAt"] for timer in timers)
        assert not default.named("ran")

    def test_a_sleep_of_no_time(self, bench: Bench) -> None:
        """A sleep that is over when it is asked for does not hold the workflow."""
        bench.worker("sleepers")
        assert bench.value("rpc", "nap", "nap", [0, 2], "sleepers") == "rested"

    def test_detached(self, bench: Bench) -> None:
        """Detached work outlives its caller: that returns at once, the work is done later."""
        bench.worker("launchers")
        id = bench.value("rpc", "launch", "launch", ["silo", "payload"], "launchers")
        assert bench.server.promise(id)["state"] == "pending"
        assert bench.server.promise("launch")["state"] == "resolved"
        bench.worker("silo")
        assert bench.value("get", id) == "payload"

    def test_an_error(self, bench: Bench) -> None:
        """An error raised in a step reaches the caller in another process with its message."""
        bench.worker("failing")
        message = bench.refusal("rpc", "error", "fail", ["no such aisle"], "failing")
        assert "no such aisle" in message
        assert bench.server.promise("error")["state"] == "rejected"

    def test_a_caught_error(self, bench: Bench) -> None:
        """A workflow catches the error of a remote call and goes on."""
        bench.worker("failing")
        bench.worker("rescuers")
        answer = bench.value("rpc", "rescue", "rescue", ["failing", "leak"], "rescuers")
        assert answer == "rescued: leak"

    def test_two_workers(self, bench: Bench) -> None:
        """Two workers of one group share its work, and each call runs once."""
        workers = [bench.worker("shared"), bench.worker("shared")]
        seen: set[str] = set()
        for n in range(20):
            seen.add(bench.value("rpc", f"who-{n}", "whoami", [], "shared"))
            if len(seen) == 2:
                break
        assert len(seen) == 2
        ran = [event for worker in workers for event in worker.named("ran", 1)]
        assert {event["pid"] for event in ran} == seen
        assert len({event["id"] for event in ran}) == len(ran)

    def test_one_id_runs_once(self, bench: Bench) -> None:
        """Two callers of one id get one run and the same answer."""
        worker = bench.worker("once")
        clients = [bench.client("rpc", "once", "add", [n, n], "once") for n in (1, 1)]
        answers = [client.wait_for("result", "error")["value"] for client in clients]
        assert answers == [2, 2]
        assert bench.value("rpc", "once", "add", [50, 50], "once") == 2
        assert len(worker.named("ran", 1)) == 1

    def test_a_killed_worker(self, bench: Bench) -> None:
        """Work of a worker killed with SIGKILL is finished by another; kept steps stay done."""
        first = bench.worker("mortal", hold=1, ttl=2000)
        client = bench.client("rpc", "relay", "relay", [], "mortal")
        first.wait_for("holding")
        first.kill()
        other = bench.worker("mortal", ttl=2000)
        assert client.wait_for("result", "error").get("value") == ["first", "second"]
        assert [event["name"] for event in first.named("step", 2)] == ["first", "second"]
        assert [event["name"] for event in other.named("step", 1)] == ["second"]

    def test_a_killed_runner(self, bench: Bench) -> None:
        """A run whose own process is killed is finished by another member of its group."""
        runner = bench.client("run", "relay", "relay", [], group="mortal", hold=1, ttl=2000)
        runner.wait_for("holding")
        runner.kill()
        other = bench.worker("mortal", ttl=2000)
        assert bench.value("get", "relay") == ["first", "second"]
        assert [event["name"] for event in other.named("step", 1)] == ["second"]

    def test_a_live_worker_keeps_its_lease(self, bench: Bench) -> None:
        """Heartbeats keep a long step where it is: nobody else gets it while its worker lives."""
        holder = bench.worker("steady", hold=1, ttl=1000)
        bench.client("rpc", "relay", "relay", [], "steady")
        holder.wait_for("holding")
        idle = bench.worker("steady", ttl=1000)
        bench.worker("clock")
        assert bench.value("rpc", "three-leases", "nap", [3000, 1], "clock") == "rested"
        assert not idle.named("step")
        holder.kill()
        idle.wait_for("step")

    def test_a_promise_settled_from_outside(self, bench: Bench) -> None:
        """A workflow waits for a promise that somebody outside resolves."""
        worker = bench.worker("approvals")
        client = bench.client("rpc", "approval", "approval", [], "approvals")
        waiting = worker.wait_for("waiting")["id"]
        until(
            "the workflow to suspend",
            lambda: bench.server.ask("task.get", id="approval")[1]["task"]["state"] == "suspended",
        )
        assert bench.value("resolve", waiting, json.dumps("granted")) == "resolved"
        assert client.wait_for("result", "error").get("value") == {"decision": "granted"}

    def test_a_schedule(self, bench: Bench) -> None:
        """A schedule fires its function on a worker, once for each instant."""
        worker = bench.worker("clockwork")
        cron = "* * * * * *"
        assert bench.value("schedule", "tick", cron, "add", [2, 3], "clockwork") == cron
        ids = [worker.wait_for("ran", count=n)["id"] for n in (1, 2)]
        assert len(set(ids)) == 2
        for id in ids:
            assert bench.value("get", id) == 5
        assert bench.server.ask("schedule.delete", id="tick")[0] == 200

    def test_a_killed_server(self, bench: Bench) -> None:
        """After SIGKILL and restart of the server, clients and workers go on by themselves."""
        bench.worker("patient", ttl=2000)
        client = bench.client("rpc", "nap", "nap", [1500, 2], "patient")
        until("the first sleep", lambda: bench.server.tagged(origin="nap", timer="true"))
        bench.server.restart()
        assert client.wait_for("result", "error").get("value") == "rested"
