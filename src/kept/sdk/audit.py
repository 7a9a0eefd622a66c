"""Where a job comes from: the event behind it, for logs, records and handlers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple

from kept.errors import InvalidArgumentsError
from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.sdk.lease import Lease
from kept.sdk.loop import refuse_in_durable_code

# Each field and the tag that carries it.
_TAGS: Final = {
    "event_id": tag.AUDIT_EVENT,
    "source_id": tag.AUDIT_SOURCE,
    "revision": tag.AUDIT_REVISION,
    "index_hash": tag.AUDIT_INDEX,
    "dedupe_key": tag.AUDIT_DEDUPE,
    "tenant": tag.AUDIT_TENANT,
    "route": tag.AUDIT_ROUTE,
    "trace": tag.TRACE_PARENT,
}
_CARRIED: Final = frozenset({*_TAGS.values(), tag.TRACE_STATE})


class Audit(NamedTuple):
    """What is to be known of a job, besides what it does: the event that caused it and its source,
    the revision of that and a hash of its content, the key against duplicates, for whom it is, which
    way it came, and the W3C `traceparent`. All of it is optional, and none of it changes what kept
    does; `tenant` in particular gives no access to anything.

    Without a `dedupe_key`, one is made of source, revision and hash where all three are given.
    """

    event_id: str | None = None
    source_id: str | None = None
    revision: int | None = None
    index_hash: str | None = None
    dedupe_key: str | None = None
    tenant: str | None = None
    route: str | None = None
    trace: str | None = None

    def tags(self) -> dict[str, str]:
        """The tags that carry it. Raises `InvalidArgumentsError` for what is no text."""
        said = self._asdict()
        for name, value in said.items():
            if value is not None and type(value) is not (int if name == "revision" else str):
                raise InvalidArgumentsError(f"audit: {name} must not be {value!r}")
        event = (self.source_id, self.revision, self.index_hash)
        if self.dedupe_key is None and None not in event:
            said["dedupe_key"] = dedupe_key(*event)  # type: ignore[arg-type]
        return {_TAGS[name]: str(value) for name, value in said.items() if value is not None}


class Job(NamedTuple):
    """The work under way: its promise's id, its function and queue, and how many times it failed
    before, plus one."""

    id: str
    function: str
    queue: str
    attempt: int
    audit: Audit


def dedupe_key(source_id: str, revision: int, index_hash: str) -> str:
    """The key of an event: SHA-256, as 64 hex digits, of what it says and of nothing else.

    Hashed are the three as UTF-8, the revision in decimal, each as a netstring: its length in bytes
    in decimal, a colon, the bytes, a comma. So no two events have one key because their parts run
    into each other, and any language can compute it.
    """
    digest = hashlib.sha256()
    for part in (source_id, str(int(revision)), index_hash):
        data = part.encode()
        digest.update(b"%d:%b," % (len(data), data))
    return digest.hexdigest()


def current_job() -> Job | None:
    """The job that the running code belongs to: a job's function, or a step; None elsewhere.

    Durable code asks its context: `ctx.id`, `ctx.attempt`, `ctx.audit`.
    """
    refuse_in_durable_code("kept.current_job()", "ask the context: ctx.audit, ctx.id, ctx.attempt")
    lease = _LEASE.get()
    return None if lease is None else _job_of(lease)


def enter_job(lease: Lease) -> None:
    """From here on, the running task works for this job, and so does all that it starts."""
    _LEASE.set(lease)


def audit_of(tags: Mapping[str, str]) -> Audit:
    """What a promise's tags say, whoever wrote them."""
    said: dict[str, str] = {
        name: tags[name_tag] for name, name_tag in _TAGS.items() if name_tag in tags
    }
    said.setdefault("dedupe_key", tags.get(tag.DEDUPE, ""))
    text = said.pop("revision", "")
    revision = int(text) if text.removeprefix("-").isdecimal() and text.isascii() else None
    return Audit(revision=revision, **{name: value for name, value in said.items() if value})


def carried_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Those of a job's tags that the calls which it makes have as well."""
    return {name: tags[name] for name in sorted(_CARRIED & tags.keys())}


def job_fields(lease: Lease) -> dict[str, str]:
    """What a log says of a job."""
    job = _job_of(lease)
    said = {name: str(value) for name, value in job.audit._asdict().items() if value is not None}
    fields = {"job": job.id, "function": job.function, "queue": job.queue}
    return {**fields, "attempt": str(job.attempt), **said}


class JobFields(logging.Filter):
    """Adds to each log record what job it is about: `record.job_fields`, names and texts, and
    `record.job`, the same as one text. Both are empty outside of jobs. Add it to a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        lease = getattr(record, "lease", None) or _LEASE.get()
        fields = {} if lease is None else job_fields(lease)
        record.__dict__["job_fields"] = fields
        record.__dict__["job"] = " ".join(f"{name}={text}" for name, text in fields.items())
        return True


_LEASE: Final = ContextVar[Lease | None]("kept-job", default=None)


def _job_of(lease: Lease) -> Job:
    tags = lease.promise.tags
    queue = queue_of(tags.get(tag.TARGET, "")) or ""
    return Job(lease.id, tags.get(tag.FUNCTION, ""), queue, lease.attempt, audit_of(tags))
