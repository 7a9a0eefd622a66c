"""Runs what a document shows: its Python programs and its commands, in order, in one directory.

- A Python block is written to a file and run, unless its first line says `# not run`. A first line
  `# shop.py` names the file; it is run as well, unless the line says `# shop.py, a module`.
- In a block of the kind `console` each line that begins with `$ ` is a command, and the lines after
  it are what it prints; `…` stands for anything, on a line of its own for any lines. A command that
  ends with ` &` runs on until the end of the document.
- The ports 8420 to 8429 are replaced by free ones.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tests.tidy.sources import ROOT

BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\w+\.py)(, a module)?$")
NOT_RUN = "# not run"
GAP = "…"
PORT = re.compile(r"\b842\d\b")

COMMAND_SECONDS = 30
START_SECONDS = 20
# What a command needs may still be starting; then a reader tries again, and so does this one.
PATIENCE_SECONDS = 15
PAUSE_SECONDS = 0.2


class Block(NamedTuple):
    """A block of a document and the line at which it begins."""

    kind: str
    text: str
    line: int


class Done(NamedTuple):
    """How a command ended, and all that it printed."""

    returncode: int
    stdout: str


def blocks_of(text: str) -> list[Block]:
    """The blocks that are run, in order."""
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in BLOCK.finditer(text)
    ]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Reader:
    """Somebody who follows a document, in `directory`."""

    def __init__(self, directory: Path, patience: float = PATIENCE_SECONDS) -> None:
        self._directory = directory
        self._patience = patience
        self._ports: dict[str, str] = {}
        self._running: list[subprocess.Popen[str]] = []
        tools = directory / "bin"
        tools.mkdir()
        for name, arguments in (("python", ""), ("kept", " -m kept")):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
            tool.chmod(0o755)
        self.place = directory / "place"
        self.place.mkdir()
        self._environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(directory),
        }

    def follow(self, text: str) -> Iterator[str]:
        """Does all that the document says; what went otherwise."""
        for block in blocks_of(text):
            run = self._python if block.kind == "python" else self._console
            for problem in run(PORT.sub(self._port, block.text)):
                yield f"line {block.line}: {problem}"

    def close(self) -> None:
        """Ends what still runs."""
        for process in self._running:
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            process.wait(START_SECONDS)

    def _port(self, shown: re.Match[str]) -> str:
        return self._ports.setdefault(shown[0], str(free_port()))

    def _python(self, code: str) -> Iterator[str]:
        first, _, _ = code.partition("\n")
        if first == NOT_RUN:
            return
        named = NAMED.match(first)
        file = self.place / (named[1] if named else "program.py")
        file.write_text(code, encoding="utf-8")
        if named is None or not named[2]:
            done = self._run(f"python {file.name}")
            if done.returncode:
                yield f"{file.name} ended with {done.returncode}:\n{done.stdout}"

    def _console(self, text: str) -> Iterator[str]:
        commands = [part for part in re.split(r"^\$ ", text, flags=re.MULTILINE) if part]
        for part in commands:
            command, _, expected = part.partition("\n")
            if command.endswith(" &"):
                yield from self._start(command.removesuffix(" &"), expected)
                continue
            yield from self._command(command, expected)

    def _command(self, command: str, expected: str) -> Iterator[str]:
        give_up_at = time.monotonic() + self._patience
        while True:
            done = self._run(command)
            if done.returncode == 0 and fits(expected, done.stdout):
                return
            if time.monotonic() >= give_up_at:
                break
        yield (
            f"{command}: expected\n{expected}\n"
            f"but it ended with {done.returncode} and printed\n{done.stdout}"
        )

    def _run(self, command: str) -> Done:
        """Runs a command to its end; one that does not come to an end in time is ended."""
        process = self._spawn(command, subprocess.PIPE)
        try:
            printed, _ = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            printed += f"(ended after {COMMAND_SECONDS} s)\n"
        return Done(process.returncode, printed)

    def _spawn(self, command: str, output: int | IO[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.place,
            env=self._environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )

    def _start(self, command: str, expected: str) -> Iterator[str]:
        """Starts a command; with output expected, waits until it is there."""
        log = self._directory / f"log-{len(self._running)}"
        with log.open("w") as output:
            process = self._spawn(f"exec {command}", output)
        self._running.append(process)
        give_up_at = time.monotonic() + START_SECONDS
        while expected.strip() and not fits(expected, log.read_text(encoding="utf-8")):
            if process.poll() is not None or time.monotonic() > give_up_at:
                yield f"{command}: expected\n{expected}\nbut it printed\n{log.read_text(encoding='utf-8')}"
                return
            try:
                process.wait(PAUSE_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def fits(expected: str, printed: str) -> bool:
    """Whether a command printed what a document shows; nothing shown means anything."""
    if not expected.strip():
        return True
    pattern = "".join(_pattern(_squeezed(line)) for line in expected.strip().splitlines())
    lines = [_squeezed(line) + "\n" for line in printed.strip().splitlines()]
    return re.fullmatch(pattern, "".join(lines)) is not None


def _pattern(line: str) -> str:
    if line == GAP:
        return "(.*\n)*"
    return ".*".join(re.escape(part) for part in line.split(GAP)) + "\n"


def _squeezed(line: str) -> str:
    """Columns are as wide as what stands in them, so their width is not compared."""
    return " ".join(line.split())
