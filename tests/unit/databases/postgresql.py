"""A PostgreSQL server of the tests' own: in a directory of theirs, on a port that is free."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

# Where Debian keeps what it does not put on the path.
_DEBIAN = Path("/usr/lib/postgresql")
_START_SECONDS = 30
_LOOK_SECONDS = 0.05
_READY = "ready to accept connections"


def programs() -> Path | None:
    """The directory of `initdb` and `pg_ctl`, where there is one."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    versions = sorted(_DEBIAN.glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


class PostgresqlServer:
    """A server that is started and stopped, in a directory that belongs to whom it runs as: that is
    somebody else where we are root, as which PostgreSQL does not run."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._owner = "postgres" if os.getuid() == 0 else None
        self._place = Path(tempfile.mkdtemp(prefix="kept-postgresql-"))
        if self._owner is not None:
            shutil.chown(self._place, self._owner)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://kept@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Returns once it answers. Nothing in it has to outlive a power failure."""
        initdb = ("initdb", "-D", "data", "-U", "kept", "-A", "trust", "-E", "UTF8", "-N")
        assert self._spawn(*initdb).wait(_START_SECONDS) == 0, self._printed()
        settings = ("fsync=off", "max_connections=40", "listen_addresses=127.0.0.1")
        settings += ("unix_socket_directories=", f"port={self._port}")
        options = [part for setting in settings for part in ("-c", setting)]
        self._server = self._spawn("postgres", "-D", "data", *options)
        while _READY not in self._printed():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(_LOOK_SECONDS)
                raise AssertionError(self._printed())

    def stop(self) -> None:
        """Ends it at once, as a crash does, and removes what it wrote."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(_START_SECONDS)
        shutil.rmtree(self._place)

    def _printed(self) -> str:
        return (self._place / "log").read_text(encoding="utf-8")

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._place / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / program, *arguments],
                user=self._owner,
                cwd=self._place,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
