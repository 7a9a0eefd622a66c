"""What a run's code says of its work, until it is sent (protocol B8)."""

from __future__ import annotations

import json

from kept.errors import ConfigurationError
from kept.protocol import requests as r
from kept.protocol.attributes import attribute_problem
from kept.protocol.limits import MAX_ATTRIBUTES


class Annotations:
    """Gathers what is said. The latest of each counts, so that a replay, which says everything
    again, sends only what holds at its end."""

    def __init__(self) -> None:
        self._said: dict[str, str | None] = {}
        self._changed: dict[str, None] = {}
        self._progress: float | None = None
        self._is_progress_new = False

    def set(self, values: dict[str, str | float | bool | None]) -> None:
        """Raises `ConfigurationError` for what the engine would refuse."""
        for name, value in values.items():
            text = value if value is None or isinstance(value, str) else json.dumps(value)
            if problem := attribute_problem(name, text):
                raise ConfigurationError(problem)
            if name not in self._said or self._said[name] != text:
                self._said[name] = text
                self._changed[name] = None
        if sum(text is not None for text in self._said.values()) > MAX_ATTRIBUTES:
            raise ConfigurationError(f"set: more than {MAX_ATTRIBUTES} attributes")

    def progress(self, fraction: float) -> None:
        """Raises `ConfigurationError` for what is not from 0 to 1."""
        if not 0 <= fraction <= 1:
            raise ConfigurationError(f"progress: must be from 0 to 1, not {fraction}")
        if fraction != self._progress:
            self._progress, self._is_progress_new = float(fraction), True

    @property
    def waiting(self) -> bool:
        """Whether anything was said that is not sent."""
        return bool(self._changed) or self._is_progress_new

    def take(self, id: str, version: int) -> r.TaskAnnotate:
        """The request that says it; nothing waits then."""
        changed = {name: self._said[name] for name in list(self._changed)[: 2 * MAX_ATTRIBUTES]}
        for name in changed:
            del self._changed[name]
        progress = self._progress if self._is_progress_new else None
        self._is_progress_new = False
        return r.TaskAnnotate(id, version, changed, progress)
