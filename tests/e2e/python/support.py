"""What every program here shares: the connection, and events as JSON lines on stdout.

Settings come from the environment:
  KEPT_URL     the server
  KEPT_GROUP   the worker group to join (default "default")
  KEPT_PID     the name of this process (default: by process number)
  KEPT_TTL     lease time of acquired tasks, in ms
  KEPT_HOLD    when set, the function `relay` stops for ever in its second step
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from datetime import timedelta
from typing import Any

from resonate.resonate import Resonate
from resonate.retry import Never

PID = os.environ.get("KEPT_PID", f"py-{os.getpid()}")
HOLD = bool(os.environ.get("KEPT_HOLD"))


def emit(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, "pid": PID, **fields}) + "\n")
    sys.stdout.flush()


#: Set once the event stream stands. Before its connection has begun to start, the SDK refuses requests.
connected = asyncio.Event()


class _Connected(logging.Handler):
    """The SDK says only in its log that the event stream stands."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("SSE connection established"):
            connected.set()
            emit("connected")


def connect() -> Resonate:
    log = logging.getLogger("resonate")
    log.setLevel(logging.INFO)
    log.addHandler(_Connected())
    warnings = logging.StreamHandler()
    warnings.setLevel(logging.WARNING)
    log.addHandler(warnings)
    return Resonate(
        url=os.environ["KEPT_URL"],
        group=os.environ.get("KEPT_GROUP", "default"),
        pid=PID,
        ttl=timedelta(milliseconds=int(os.environ.get("KEPT_TTL", "60000"))),
        retry_policy=Never(),
    )
