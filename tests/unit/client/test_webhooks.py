"""`kept.verify_webhook`: what it believes, and what it does not."""

from __future__ import annotations

import json

import pytest

import kept
from kept.protocol.signatures import signature_of

SECRET = "s" * 32
NOW = 1_767_225_600
PROMISE = {
    "id": "p",
    "state": "rejected",
    "param": {},
    "value": {"data": "no"},
    "tags": {},
    "timeoutAt": 9,
    "createdAt": 1,
}
BODY = json.dumps({"kind": "unblock", "head": {}, "data": {"promise": PROMISE}}).encode()


def signed(body: bytes = BODY, seconds: int = NOW, *secrets: str) -> str:
    return signature_of(body, seconds, [secret.encode() for secret in secrets or (SECRET,)])


def test_a_known_signature() -> None:
    """The form and the digest never change: receivers in other languages compute them."""
    expected = "ae4895155f8573b496d51a1f826b8d6c02f086eeb138d08938e834b2b010263e"
    assert signature_of(b"{}", NOW, [b"k" * 32]) == f"t={NOW},v1={expected}"


def test_what_is_right_is_decoded() -> None:
    """By text or bytes, by one secret or the one of several that fits, from one header of several."""
    for secrets in (SECRET, SECRET.encode(), ["x" * 32, SECRET]):
        promise = kept.verify_webhook(BODY, signed(), secrets, now=NOW + 299)
        assert (promise.id, promise.state.value, promise.value.data) == ("p", "rejected", "no")
    both = signed(BODY, NOW, "x" * 32, SECRET)
    assert kept.verify_webhook(BODY, both, SECRET, now=NOW).id == "p"


@pytest.mark.parametrize("age", [301, -301, 10**9])
def test_one_that_is_too_old_or_from_the_future(age: int) -> None:
    """A recorded request cannot be sent again later."""
    with pytest.raises(kept.WebhookSignatureError, match="may be 300 s old"):
        kept.verify_webhook(BODY, signed(), SECRET, now=NOW + age)
    assert kept.verify_webhook(BODY, signed(), SECRET, now=NOW + age, max_age=10**10).id == "p"


@pytest.mark.parametrize(
    "header",
    [
        "",
        None,
        "t=1",
        signed().replace("v1=", "v0="),
        signed().partition(",")[2],
        signed().replace(f"t={NOW}", f"t={NOW + 1}"),
        f"t={NOW},{signed()}",
        signed()[:-1],
        signed().upper(),
        signed(BODY + b" "),
        signed(BODY, NOW, "x" * 32),
        ",".join(["v1=" + "0" * 64] * 20) + "," + signed(),
        "t=٣,v1=" + "0" * 64,
    ],
)
def test_what_is_wrong_is_refused(header: str | None) -> None:
    """Missing, cut, changed, for another body or time, by another secret."""
    with pytest.raises(kept.WebhookSignatureError):
        kept.verify_webhook(BODY, header, SECRET, now=NOW)


def test_what_is_signed_and_no_webhook() -> None:
    """The signature says who, the body must still say what."""
    for body in (b"{}", b"", b"\xff", b'{"kind":"execute","data":{}}', b"[" * 9_999):
        with pytest.raises(kept.WebhookSignatureError, match="not a webhook"):
            kept.verify_webhook(body, signed(body), SECRET, now=NOW)


def test_no_secret_is_a_mistake_of_the_caller() -> None:
    """An empty secret would accept what everybody can make."""
    for secrets in ("", [], ["", SECRET]):
        with pytest.raises(ValueError, match="secrets"):
            kept.verify_webhook(BODY, signed(), secrets, now=NOW)
