"""`import kept` is cheap: what it takes in, every script, test and command line pays for."""

from __future__ import annotations

import json
import subprocess
import sys

# What a server, a client over HTTP, or an extra needs is imported when it is used.
IMPORTED_WHEN_USED = {
    "aiohttp",
    "asyncpg",
    "cryptography",
    "django",
    "httptools",
    "jwt",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "rich",
    "sqlalchemy",
    "uvicorn",
    "uvloop",
}


def test_import_takes_in_nothing_heavy() -> None:
    """A fresh interpreter that imports kept has loaded no server, no HTTP client and no extra."""
    program = "import json, sys, kept; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert IMPORTED_WHEN_USED & set(json.loads(done.stdout)) == set()
