"""One step of the machine: the records, the instant, and the operator's settings."""

from __future__ import annotations

from kept.machine.working_set import WorkingSet
from kept.protocol.addresses import BASE_SCHEMES
from kept.protocol.limits import (
    CANCEL_GRACE_MS,
    DEFAULT_RETENTION_MS,
    DEFAULT_RETRY_TIMEOUT_MS,
    DEFAULT_UNREGISTERED_GRACE_MS,
)


class MachineConfig:
    """The operator's settings: read by the machine, never stored.

    `retry_timeout_ms`: after how long a pushed task that nobody acquired is offered again.
    `schemes`: those of the installed transports. `unregistered_grace_ms`: how long jobs wait whose
    function nobody announces. `cancel_grace_ms`: how long work that is asked to stop may take.
    `retention_ms`: how long a settled tree stays whose queue says nothing; None: for ever.
    """

    __slots__ = (
        "cancel_grace_ms",
        "retention_ms",
        "retry_timeout_ms",
        "schemes",
        "unregistered_grace_ms",
    )

    def __init__(
        self,
        retry_timeout_ms: int = DEFAULT_RETRY_TIMEOUT_MS,
        schemes: frozenset[str] = BASE_SCHEMES,
        unregistered_grace_ms: int = DEFAULT_UNREGISTERED_GRACE_MS,
        cancel_grace_ms: int = CANCEL_GRACE_MS,
        retention_ms: int | None = DEFAULT_RETENTION_MS,
    ) -> None:
        # A retry that is due again at the instant it fires would never come to an end.
        assert retry_timeout_ms > 0
        self.retry_timeout_ms = retry_timeout_ms
        self.schemes = schemes
        self.cancel_grace_ms = cancel_grace_ms
        self.retention_ms = retention_ms
        self.unregistered_grace_ms = unregistered_grace_ms


class Step:
    """What a handler works on: `records` at `now` (ms). `request_id` makes it repeatable (B1)."""

    __slots__ = ("config", "now", "records", "request_id")

    def __init__(
        self,
        records: WorkingSet,
        now: int,
        config: MachineConfig,
        request_id: str | None = None,
    ) -> None:
        self.records = records
        self.now = now
        self.config = config
        self.request_id = request_id
