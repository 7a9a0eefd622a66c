"""Forks servers and workers from one process that has imported everything, so that a test can afford
to kill thousands.

Run as `python -m tests.crash.nursery`: a line of JSON on standard input asks, a line answers. When the
input ends, whatever still runs is killed; and each child is killed by the kernel when this process dies.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import traceback
from typing import Final, NoReturn

import msgspec

# Imported here, so that no child has to.
import kept.cli.serve
import kept.cli.worker
import kept.client.http
import kept.client.local
import kept.engine.engine
import kept.sdk.worker
import kept.server.serve
import kept.stores.sqlite
import kept.transports.http  # noqa: F401
from kept.cli.main import main
from tests.crash import points

PR_SET_PDEATHSIG: Final = 1
CAPABILITY_VERSION: Final = 0x20080522
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
PASSING_OVER_PERMISSIONS: Final = 1 << 1 | 1 << 2
LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Order(msgspec.Struct, omit_defaults=True):
    """A process to start: `kept` with these arguments. Or the end of an earlier one (`wait`)."""

    argv: list[str] = []
    env: dict[str, str] = {}
    directory: str = "/"
    log: str = os.devnull
    # The named point at which it kills itself, and at which pass.
    point: str = ""
    passes: int = 1
    # Commits bring the log into the file after so many pages; 0 leaves kept's own number.
    checkpoint_pages: int = 0
    # A message whose delivery broke off is sent again after so long; 0 leaves kept's half minute.
    try_ms: int = 0
    # It can write files up to this size.
    file_bytes: int = 0
    # Permissions bind it, even if it is root.
    plain: bool = False
    wait: int = 0
    # No process: a place where something is mounted, to be taken away at the end.
    mounted: str = ""


class Done(msgspec.Struct):
    """The answer: the process id, or the code with which it ended (minus the signal's number)."""

    number: int


def nurse() -> None:
    """Answers orders until the input ends."""
    decode = msgspec.json.Decoder(Order).decode
    children: set[int] = set()
    mounts: list[str] = []
    try:
        for line in sys.stdin.buffer:
            order = decode(line)
            if order.wait:
                _, status = os.waitpid(order.wait, 0)
                children.discard(order.wait)
                number = os.waitstatus_to_exitcode(status)
            elif order.mounted:
                mounts.append(order.mounted)
                number = 0
            else:
                us = os.getpid()
                number = os.fork()
                if number == 0:
                    _be(order, us)
                children.add(number)
            sys.stdout.buffer.write(msgspec.json.encode(Done(number)) + b"\n")
            sys.stdout.buffer.flush()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for place in mounts:
            if os.path.ismount(place):
                subprocess.run(["umount", "--lazy", place], check=False)


def _be(order: Order, parent: int) -> NoReturn:
    """The child's life."""
    code = 1
    try:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            points.die()
        os.setsid()
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(order.env)
        if order.plain:
            _be_plain()
        os.chdir(order.directory)
        if order.file_bytes:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_bytes, hard))
        points.checkpoint_after(order.checkpoint_pages)
        points.try_again_after(order.try_ms)
        points.die_at(order.point, order.passes)
        code = main(order.argv)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not become a second nursery
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _be_plain() -> None:
    """Gives up root's right to pass over permissions."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    LIBC.capget(header, sets)
    # The first of the six are those in effect.
    sets[0] &= ~PASSING_OVER_PERMISSIONS
    if LIBC.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    nurse()
