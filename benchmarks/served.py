"""A server process of its own for the measurements over HTTP."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(path: Path) -> Iterator[str]:
    """The URL of `kept serve` on a fresh SQLite file."""
    command = [sys.executable, "-m", "kept", "serve", "--port", "0", "--store", f"sqlite:///{path}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if address := re.search(r"http://[\w.:\[\]]+", line):
                yield address.group()
                break
        else:
            raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
