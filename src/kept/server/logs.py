"""Logs: one line for each event, as `name=value`, so that a machine can read them too."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_PLAIN: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/+@,()[]"
)


class LineFormatter(logging.Formatter):
    """`time=… level=… logger=… message="…" exception="…"`, always on one line. Behind the message
    stands what the record says of its job (`job_fields`), where it is about one."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        fields = [
            ("time", moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")),
            ("level", record.levelname.lower()),
            ("logger", record.name),
            ("message", record.getMessage()),
        ]
        about: dict[str, str] = getattr(record, "job_fields", {})
        fields += about.items()
        if record.exc_info:
            fields.append(("exception", self.formatException(record.exc_info)))
        return " ".join(f"{name}={_quoted(text)}" for name, text in fields)


def _quoted(text: str) -> str:
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=True)


def configure_logs(level: int = logging.INFO) -> None:
    """Sends the logs of the whole process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
