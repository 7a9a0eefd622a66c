"""A command that runs as a child process: its signals, its end, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from kept.cli.failure import UsageError, complain

# As shells say them, and `timeout`.
EXIT_NOT_HAD: Final = 124
EXIT_LOST: Final = 125
EXIT_CANNOT_RUN: Final = 126
EXIT_NOT_FOUND: Final = 127
EXIT_SIGNAL_BASE: Final = 128
# Between asking a command to end and making it.
GRACE_SECONDS: Final = 5.0

EXIT_CODES: Final = f"""\
Exit codes: the command's own, {EXIT_SIGNAL_BASE}+N where signal N ended it,
{EXIT_CANNOT_RUN} where it cannot be run, {EXIT_NOT_FOUND} where there is none"""


class Child:
    """One command. Signals that this process gets are passed on to it once it runs, and before that
    cancel the task that made this."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._process: asyncio.subprocess.Process | None = None
        # With a terminal, it shares the group that the terminal's keys signal, and may read there.
        self._has_group = sys.platform != "win32" and not _has_terminal()
        self.received: int | None = None
        if sys.platform != "win32":
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._receive, number)

    async def run(
        self, command: Sequence[str], more: Mapping[str, str], *, stdout: int | None = None
    ) -> tuple[int, bytes]:
        """The exit code, and what was printed where `stdout` is a pipe. `more` goes to its
        environment. Where the caller is cancelled, the command is ended first."""
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **more},
                stdout=stdout,
                process_group=0 if self._has_group else None,
            )
        except (OSError, ValueError) as error:
            complain(f"{command[0]}: {getattr(error, 'strerror', None) or error}")
            is_missing = isinstance(error, FileNotFoundError)
            return (EXIT_NOT_FOUND if is_missing else EXIT_CANNOT_RUN), b""
        try:
            printed, _ = await process.communicate()
        except asyncio.CancelledError:
            await self._end(process)
            raise
        finally:
            self._process = None
        code = process.returncode
        assert code is not None
        return (code if code >= 0 else EXIT_SIGNAL_BASE - code), printed or b""

    def _receive(self, number: signal.Signals) -> None:
        self.received = number
        if self._process is None:
            self._task.cancel()
        elif self._has_group or number != signal.SIGINT:
            # Ctrl-C on a terminal is the command's already.
            self._signal(number)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            if self._has_group:
                os.killpg(self._process.pid, number)
            elif self._process.returncode is None:
                self._process.send_signal(number)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        # What it still prints is read, as a full pipe would keep it from ending.
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await process.communicate()
        # What it started and left, too.
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        await process.communicate()


def command_of(rest: Sequence[str], name: str) -> list[str]:
    """What stands behind `--` on a command line on which `name` stands before it. Raises `UsageError`."""
    at = rest.index("--") if "--" in rest else len(rest)
    command = [*rest[at + 1 :]]
    if not command or name not in rest[:at]:
        raise UsageError(f"write -- and the command after {name}: … run {name} -- COMMAND …")
    return command


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True
