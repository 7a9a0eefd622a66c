"""What receivers of webhooks need: `kept.verify_webhook`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kept.errors import WebhookSignatureError
from kept.protocol.records import PromiseRecord
from kept.protocol.signatures import signature_problem
from kept.runtime import wall_clock_ms

DEFAULT_MAX_AGE_SECONDS: Final = 300.0


class _Settled(msgspec.Struct):
    promise: PromiseRecord


class _Unblock(msgspec.Struct, tag_field="kind", tag="unblock"):
    data: _Settled


_decoder: Final = msgspec.json.Decoder(_Unblock)


def verify_webhook(
    body: bytes,
    signature: str | None,
    secrets: str | bytes | Sequence[str | bytes],
    *,
    max_age: float = DEFAULT_MAX_AGE_SECONDS,
    now: float | None = None,
) -> PromiseRecord:
    """The settled promise that a webhook tells of, once it is sure that it was sent by whoever has the
    secret.

    `body` are the bytes as they came, `signature` is the header `Kept-Signature`, `secrets` are one or
    several, of which any may have signed. `max_age` (s) is how old it may be, or how far ahead its
    clock; `now` (s since the epoch) is the machine's clock. The same webhook may come more than once:
    the promise's id tells. Raises `WebhookSignatureError`. Protocol A6.
    """
    if not signature:
        raise WebhookSignatureError("there is no header Kept-Signature")
    several = [secrets] if isinstance(secrets, str | bytes) else secrets
    keys = [secret.encode() if isinstance(secret, str) else secret for secret in several]
    if not keys or not all(keys):
        raise ValueError("secrets: name at least one, and none that is empty")
    instant = wall_clock_ms() / 1_000 if now is None else now
    problem = signature_problem(body, signature, keys, instant, max_age)
    if problem is not None:
        raise WebhookSignatureError(f"the signature does not hold: {problem}")
    try:
        return _decoder.decode(body).data.promise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WebhookSignatureError(f"it is signed, and not a webhook: {error}") from None
