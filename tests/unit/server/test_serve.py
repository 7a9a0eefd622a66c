"""The server as a process: its first line, its refusals, and how it stops."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kept.server.serve import is_loopback
from tests.unit.server.support import VERSION, envelope, eventually, post_bytes, read_answer

SERVE = """
import sys
from kept.server.serve import ServerOptions, run_server
sys.exit(run_server(ServerOptions(port=0, host=sys.argv[1], store_url=sys.argv[2], debug=True)))
"""
NEVER = 2**53 - 1


class Process:
    """A running server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0
        self.lines: list[str] = []

    async def line_with(self, text: str) -> str:
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            while True:
                line = (await self.process.stderr.readline()).decode()
                if not line:
                    raise AssertionError(f"it ended without {text!r}: {self.lines}")
                self.lines.append(line)
                if text in line:
                    return line

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**23)

    async def post(self, kind: str, data: Any) -> tuple[int, Any]:
        reader, writer = await self.open()
        writer.write(post_bytes(envelope(kind, data)))
        status, _, body = await read_answer(reader)
        writer.close()
        await writer.wait_closed()
        return status, json.loads(body)

    async def exit_code(self) -> int:
        async with asyncio.timeout(25):
            return await self.process.wait()


@asynccontextmanager
async def started(
    store_url: str = "memory://", host: str = "127.0.0.1", *flags: str
) -> AsyncIterator[Process]:
    """A server process, killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *flags, "-c", SERVE, host, store_url, stderr=asyncio.subprocess.PIPE
    )
    made = Process(process)
    try:
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(server: Process) -> None:
    line = await server.line_with("listening on")
    server.port = int(line.rsplit(":", 1)[1])


async def test_one_line_tells_the_real_port_and_sigterm_ends_it_with_0(tmp_path: Path) -> None:
    """Port 0 is announced as what it became; what was stored is there after a restart."""
    url = f"sqlite:///{tmp_path}/kept.db"
    async with started(url) as server:
        await ready(server)
        assert server.port > 0
        status, _ = await server.post("promise.create", {"id": "p", "timeoutAt": NEVER})
        assert status == 200
        server.process.send_signal(signal.SIGTERM)
        assert await server.exit_code() == 0
    async with started(url) as server:
        await ready(server)
        status, answer = await server.post("promise.get", {"id": "p"})
        assert (status, answer["data"]["promise"]["id"]) == (200, "p")


async def test_a_stop_answers_those_who_wait_and_ends_streams() -> None:
    """A wait gets the pending record, a claim what it has, a stream its end; then exit code 0."""
    async with started() as server:
        await ready(server)
        await server.post("promise.create", {"id": "p", "timeoutAt": NEVER})
        waits = [
            ("promise.wait", {"id": "p", "timeout": 60_000}),
            ("task.claim", {"queues": ["q"], "pid": "w", "ttl": 1_000, "wait": 30_000}),
        ]
        waiting = [(await server.open(), kind, data) for kind, data in waits]
        for (_, writer), kind, data in waiting:
            writer.write(post_bytes(envelope(kind, data)))
        stream_reader, stream_writer = await server.open()
        stream_writer.write(b"GET /poll/g/w HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_answer(stream_reader)
        idle_reader, idle_writer = await server.open()
        # What was asked before on other connections has reached the engine once this is answered.
        async with asyncio.timeout(10):
            while True:
                idle_writer.write(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
                _, _, body = await read_answer(idle_reader)
                if b"kept_requests_waiting 2.0" in body:
                    break
        server.process.send_signal(signal.SIGTERM)
        for (reader, writer), kind, _ in waiting:
            status, _, body = await read_answer(reader)
            answer = json.loads(body)
            assert (status, answer["head"]["version"]) == (200, VERSION)
            if kind == "promise.wait":
                assert answer["data"]["promise"]["state"] == "pending"
            else:
                assert answer["data"]["tasks"] == []
            writer.close()
        async with asyncio.timeout(10):
            assert (await stream_reader.read()).endswith(b"0\r\n\r\n")
            assert await idle_reader.read() == b""
        for writer in (stream_writer, idle_writer):
            writer.close()
        assert await server.exit_code() == 0


async def test_a_stop_under_load_breaks_no_answer_and_no_promise(tmp_path: Path) -> None:
    """Clients that keep creating see whole answers and then a closed connection, and everything that
    was acknowledged is there after a restart."""
    url = f"sqlite:///{tmp_path}/kept.db"
    acknowledged: list[str] = []
    broken: list[bytes] = []

    async def create_until_closed(server: Process, name: int) -> None:
        reader, writer = await server.open()
        for number in range(1_000_000):
            id = f"{name}.{number}"
            try:
                writer.write(post_bytes(envelope("promise.create", {"id": id, "timeoutAt": NEVER})))
                status, _, _ = await read_answer(reader)
            except asyncio.IncompleteReadError as closed:
                broken.append(closed.partial)
                break
            except ConnectionError:
                break
            assert status in (200, 503)
            if status == 200:
                acknowledged.append(id)
        writer.close()

    async with started(url) as server:
        await ready(server)
        clients = [asyncio.create_task(create_until_closed(server, name)) for name in range(16)]
        await eventually(lambda: len(acknowledged) > 200)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        assert not any(broken)
        assert await server.exit_code() == 0
    async with started(url) as server:
        await ready(server)
        reader, writer = await server.open()
        for start in range(0, len(acknowledged), 500):
            ids = acknowledged[start : start + 500]
            batch = [envelope("promise.get", {"id": id}) for id in ids]
            writer.write(post_bytes(batch, "/batch"))
            _, _, body = await read_answer(reader)
            assert [answer["head"]["status"] for answer in json.loads(body)] == [200] * len(ids)
        writer.close()


async def test_a_second_signal_ends_it_at_once() -> None:
    """Whoever does not want to wait for the rest of a request need not."""
    async with started() as server:
        await ready(server)
        _, writer = await server.open()
        # A request that is not complete holds a graceful stop until its grace is over.
        writer.write(post_bytes({"kind": "promise.get"})[:-3])
        await writer.drain()
        await server.post("promise.get", {"id": "p"})
        server.process.send_signal(signal.SIGINT)
        await server.line_with("stopping")
        server.process.send_signal(signal.SIGINT)
        assert await server.exit_code() == 128 + signal.SIGINT
        writer.close()


async def test_it_does_not_run_without_assertions() -> None:
    """python -O would switch the invariants off."""
    async with started("memory://", "127.0.0.1", "-O") as server:
        await server.line_with("without python -O")
        assert await server.exit_code() != 0


async def test_an_open_server_without_authentication_says_so() -> None:
    """Listening beyond this machine is possible, and warned about, on one line."""
    async with started("memory://", "0.0.0.0") as server:
        line = await server.line_with("no authentication")
        assert "level=warning" in line
        await ready(server)


@pytest.mark.parametrize("url", ["nonsense", "mysql://h", "sqlite:////nowhere/at/all/kept.db"])
async def test_a_store_that_cannot_be_opened_stops_it(url: str) -> None:
    """It is an error at the start, and no address is announced."""
    async with started(url) as server:
        await server.line_with("Error")
        assert await server.exit_code() != 0
        assert not any("listening" in line for line in server.lines)


def test_what_is_loopback() -> None:
    """Names and addresses that only this machine reaches."""
    for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", ""):
        assert not is_loopback(host)
