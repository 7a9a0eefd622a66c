"""The signature of a message that is POSTed (protocol A6): HMAC-SHA256 over its time and its body.

`Kept-Signature: t=1767225600,v1=…`, the time in seconds, one `v1` in hexadecimal for each secret: while a
secret is replaced there are two, and a receiver needs to know one of them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

SIGNATURE_HEADER: Final = "Kept-Signature"
MAX_SECRETS: Final = 2
# As long as the hash.
MIN_SECRET_BYTES: Final = 32

_TIME: Final = re.compile(r"t=([0-9]{1,15})")
_DIGEST: Final = re.compile(r"v1=([0-9a-f]{64})")
# No more are looked at: whoever sends them may not make a receiver work.
_MAX_PARTS: Final = 16


def signature_of(body: bytes, seconds: int, secrets: Sequence[bytes]) -> str:
    """The value of the header for a body that is sent at an instant (s)."""
    digests = [f"v1={_digest(body, seconds, secret)}" for secret in secrets]
    return ",".join([f"t={seconds}", *digests])


def signature_problem(
    body: bytes, signature: str, secrets: Sequence[bytes], now: float, max_age: float
) -> str | None:
    """Why a signature does not hold at `now` (s), if it does not. It takes as long for a wrong one as
    for a right one."""
    parts = [part.strip() for part in signature.split(",", _MAX_PARTS)[:_MAX_PARTS]]
    times = [match.group(1) for part in parts if (match := _TIME.fullmatch(part))]
    given = [match.group(1) for part in parts if (match := _DIGEST.fullmatch(part))]
    if len(times) != 1 or not given:
        return "it has no time, or no signature of a form that is known here"
    seconds = int(times[0])
    matches = 0
    for secret in secrets:
        expected = _digest(body, seconds, secret)
        for digest in given:
            matches += hmac.compare_digest(expected, digest)
    if not matches:
        return "it was not made with any of these secrets over this body"
    if abs(now - seconds) > max_age:
        return f"it was made {round(now - seconds)} s ago, and may be {max_age:g} s old"
    return None


def _digest(body: bytes, seconds: int, secret: bytes) -> str:
    return hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
