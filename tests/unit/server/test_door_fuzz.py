"""Anything at all, thrown at the door: the answer is always the protocol's, the connection always ends
or goes on, and nothing is ever a traceback or a 500."""

from __future__ import annotations

import asyncio
import json
import string
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kept.errors import UnauthenticatedError
from kept.protocol.kinds import REQUEST_BY_KIND
from kept.server.auth import AuthOptions, open_authenticator
from kept.server.limits import Limits
from tests.unit.server.support import (
    VERSION,
    RunningDoor,
    envelope,
    hand_made,
    post_bytes,
    read_answer,
    running_door,
)
from tests.unit.transports.manual_runtime import ManualRuntime

# One door serves this many inputs of one example, because starting it costs more than they do.
INPUTS = 25
QUICK = Limits(head_timeout=0.1, body_timeout=0.1, idle_timeout=1)
LIMITS = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
SECRET = "a secret of at least thirty-two bytes"

KINDS = st.sampled_from(sorted(REQUEST_BY_KIND)) | st.text(max_size=20)
FIELDS = [
    "id",
    "version",
    "pid",
    "ttl",
    "action",
    "kind",
    "data",
    "head",
    "tasks",
    "queues",
    "limit",
    "wait",
    "timeout",
    "timeoutAt",
    "param",
    "value",
    "tags",
    "state",
    "awaited",
    "awaiter",
    "address",
    "cron",
    "promiseId",
    "promiseTimeout",
    "step",
    "released",
    "ids",
    "cursor",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["", "\0", "x" * 10_240, "resolved", "poll://any@g", "http://h", "queue://q"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=12,
)
HEADS = st.fixed_dictionaries(
    {},
    optional={
        "corrId": SCALARS,
        "version": st.sampled_from([VERSION, "2020-01-01", "", 3, None]),
        "auth": SCALARS,
        "resonate:debug_time": SCALARS,
        "kept:request": SCALARS,
        "resonate:origin": SCALARS,
    },
)
GOOD_HEADS = st.fixed_dictionaries({"corrId": st.text(max_size=5), "version": st.just(VERSION)})
ENVELOPES = st.fixed_dictionaries(
    {}, optional={"kind": KINDS | SCALARS, "head": GOOD_HEADS | HEADS | SCALARS, "data": VALUES}
)


def encoded(value: Any) -> bytes:
    """JSON as Python writes it, which allows lone surrogates as escapes."""
    return json.dumps(value).encode()


def damaged(body: bytes, at: int, piece: bytes) -> bytes:
    """A body with a piece of other bytes somewhere."""
    at %= len(body) + 1
    return body[:at] + piece + body[at + len(piece) // 2 :]


BODIES = (
    VALUES.map(encoded)
    | ENVELOPES.map(encoded)
    | st.binary(max_size=200)
    | st.builds(damaged, ENVELOPES.map(encoded), st.integers(0, 10_000), st.binary(max_size=6))
    | st.builds(lambda body, end: body[:end], ENVELOPES.map(encoded), st.integers(0, 200))
)


def check_answer(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Whether an answer is the protocol's, whatever was asked."""
    assert headers["content-type"] == "application/json"
    answer: dict[str, Any] = json.loads(body)
    check_envelope(answer)
    assert answer["head"]["status"] == status
    assert b"Traceback" not in body
    return answer


def check_envelope(answer: dict[str, Any]) -> None:
    assert set(answer) == {"kind", "head", "data"}
    assert isinstance(answer["kind"], str)
    head = answer["head"]
    assert isinstance(head["corrId"], str)
    assert head["version"] == VERSION
    assert head["status"] in (200, 400, 404, 413)
    assert isinstance(answer["data"], str) == (head["status"] != 200)


async def lives(door: RunningDoor) -> None:
    """A fresh connection is served."""
    assert (await door.post(envelope("promise.get", {"id": "p"})))[0] == 200


@LIMITS
@given(bodies=st.lists(BODIES, min_size=1, max_size=INPUTS))
@example(bodies=[b'{"kind":"promise.get","head":{"corrId":"\\ud800"},"data":{}}'])
@example(bodies=[b"\x00", b"\xef\xbb\xbf{}", b"1" * 5_000, b'"\\ud800"', b"{}" * 3])
@example(bodies=[b'{"a":' * 100_000, b"[" * 1_000_000, b'{"data":' + b"[" * 99_999])
@example(bodies=[encoded(envelope("promise.get", {"id": "\ud800"}))])
@example(bodies=[encoded(envelope("\ud800", {}, "\ud800"))])
async def test_any_body_gets_the_protocols_answer(bodies: list[bytes]) -> None:
    """POST / on one connection after another body: an envelope each time, and it goes on."""
    async with running_door() as door, door.connect() as (reader, writer):
        for body in bodies:
            writer.write(post_bytes(body))
            check_answer(*await read_answer(reader))


@LIMITS
@given(bodies=st.lists(BODIES | st.lists(VALUES | ENVELOPES, max_size=8).map(encoded), max_size=9))
@example(bodies=[b"[" + b"0," * 1_500_000 + b"0]"])
@example(bodies=[b"[" + b"[" * 100_000 + b"]"])
async def test_any_batch_gets_the_protocols_answers(bodies: list[bytes]) -> None:
    """POST /batch: an array of envelopes, or one refusal."""
    async with running_door() as door, door.connect() as (reader, writer):
        for body in bodies:
            writer.write(post_bytes(body, "/batch"))
            status, headers, content = await read_answer(reader)
            if status == 200:
                for answer in json.loads(content):
                    check_envelope(answer)
            else:
                check_answer(status, headers, content)


@LIMITS
@given(
    kinds=st.lists(st.sampled_from(sorted(REQUEST_BY_KIND)), min_size=1, max_size=INPUTS),
    data=st.data(),
)
async def test_any_data_of_a_known_kind_gets_the_protocols_answer(
    kinds: list[str], data: st.DataObject
) -> None:
    """Valid envelopes whose fields have wrong types, wrong bounds and wrong names."""
    async with running_door() as door, door.connect() as (reader, writer):
        for kind in kinds:
            fields = data.draw(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8))
            writer.write(post_bytes(encoded(envelope(kind, fields, "me"))))
            answer = check_answer(*await read_answer(reader))
            assert (answer["kind"], answer["head"]["corrId"]) == (kind, "me")


HEADER_TEXT = st.binary(max_size=30).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b""))
RAW_REQUESTS = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(
        lambda method, path, name, value: (
            method + b" " + path + b" HTTP/1.1\r\n" + name + b": " + value + b"\r\n\r\n"
        ),
        st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"PRI", b"get", b""]),
        st.sampled_from([b"/", b"/poll/g/%ff", b"*", b"http://h/", b"h:1", b"/\xff", b"/%", b""])
        | st.binary(max_size=20),
        st.sampled_from([b"Host", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"Expect"])
        | HEADER_TEXT,
        st.sampled_from([b"-1", b"1e9", b"chunked, gzip", b"99999999999999999999", b"0", b"h2c"])
        | HEADER_TEXT,
    ),
    st.builds(
        damaged,
        st.just(post_bytes(envelope("promise.get", {"id": "p"}))),
        st.integers(0, 10_000),
        st.binary(min_size=1, max_size=8),
    ),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(requests=st.lists(RAW_REQUESTS, min_size=1, max_size=8))
@example(requests=[b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
@example(
    requests=[b"GET /\xff HTTP/1.1\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]
)
@example(requests=[b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"])
@example(requests=[b"OPTIONS * HTTP/1.1\r\n\r\n", b"GET ?x HTTP/1.1\r\n\r\n"])
async def test_any_bytes_end_in_an_answer_or_a_closed_connection(requests: list[bytes]) -> None:
    """Raw bytes and then silence: within the deadline the connection is closed, whatever came before
    is HTTP, each refusal is the protocol's, and others are served."""
    async with running_door(limits=QUICK) as door:
        answers = await asyncio.gather(*(everything(door, request) for request in requests))
        for answer in answers:
            assert answer == b"" or answer.startswith(b"HTTP/1.")
            assert b"Traceback" not in answer
            assert b"Internal Server Error" not in answer
            assert b"text/plain" not in answer.replace(b"text/plain; version=", b"")
        await lives(door)


async def everything(door: RunningDoor, request: bytes) -> bytes:
    """All that comes back until the server closes; fails if it does not."""
    async with door.connect() as (reader, writer):
        with suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        async with asyncio.timeout(15):
            try:
                if request.startswith(b"GET /poll/"):
                    return await reader.read(20)
                return await reader.read()
            except ConnectionError:
                return b""


@pytest.mark.parametrize("cut", range(0, 185, 23))
async def test_a_request_cut_anywhere_leaves_nothing_behind(cut: int) -> None:
    """The client sends a part and leaves: by closing, or by closing its sending half only."""
    async with running_door(limits=QUICK) as door:
        part = post_bytes(envelope("promise.get", {"id": "p"}))[:cut]
        async with door.connect() as (_, writer):
            writer.write(part)
        async with door.connect() as (reader, writer):
            writer.write(part)
            writer.write_eof()
            async with asyncio.timeout(10):
                rest = await reader.read()
            assert rest == b"" or rest.startswith(b"HTTP/1.1 ")
        await lives(door)


@given(
    st.text(max_size=60)
    | st.text(string.ascii_letters + "._-=", max_size=60)
    | st.builds(
        lambda header, claims: hand_made({"alg": "HS256", **header}, claims, SECRET.encode()),
        st.dictionaries(st.sampled_from(["kid", "typ", "crit", "b64", "x"]), st.text(max_size=5)),
        st.dictionaries(
            st.sampled_from(["exp", "nbf", "aud", "iss", "sub", "jti", "role", "prefix", "tenant"]),
            st.none()
            | st.integers(-(2**70), 2**70)
            | st.floats()
            | st.text(max_size=5)
            | st.lists(st.text(max_size=3), max_size=2),
        ),
    )
)
@example("\ud800.\ud800.\ud800")
@example("e30.e30.e30")
@example("W10.W10.W10")
def test_any_token_is_an_authority_or_a_401(token: str) -> None:
    """Nothing that a token holds breaks the check, and what it gives is well-formed."""
    checks = open_authenticator(AuthOptions(secret=SECRET), ManualRuntime())
    try:
        authority = checks.authenticate(token)
    except UnauthenticatedError:
        return
    assert isinstance(authority.tenant, str)
    assert authority.prefix is None or isinstance(authority.prefix, str)
