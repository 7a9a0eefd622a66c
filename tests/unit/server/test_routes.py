"""The door's routes: what each answers, and in which form it refuses (protocol A1)."""

from __future__ import annotations

import json

import pytest

from kept.errors import StoreFailedError
from kept.protocol import requests as r
from kept.protocol.responses import Response
from tests.unit.server.support import VERSION, envelope, post_bytes, read_answer, running_door


async def test_an_answer_echoes_kind_and_correlation_and_its_status_is_the_http_status() -> None:
    """kind and corrId come back, both statuses are equal, the type is JSON: found or not."""
    async with running_door() as door:
        for id, expected in (("p1", 200), ("missing", 404)):
            status, headers, answer = await door.post(envelope("promise.get", {"id": id}, "me"))
            assert status == expected
            assert headers["content-type"] == "application/json"
            assert answer["kind"] == "promise.get"
            assert answer["head"] == {"corrId": "me", "status": expected, "version": VERSION}
        assert answer["data"] == "missing does not exist"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "envelope"),
        (b'"x"', "envelope"),
        (b"\xff\xfe", "body"),
        (b"[" * 200_000, "envelope"),
        (b'{"a":' * 200_000, "body"),
        (b'{"kind":"promise.get","head":{},"data":{"id":"p"}}', "head.version"),
        (json.dumps(envelope("", {})).encode(), "kind"),
        (json.dumps(envelope("promise.fly", {})).encode(), "kind"),
        (json.dumps(envelope("promise.get", [])).encode(), "data"),
        (json.dumps(envelope("promise.get", {})).encode(), "data"),
        (json.dumps(envelope("promise.get", {"id": 7})).encode(), "data"),
        (json.dumps(envelope("promise.get", {"id": ""})).encode(), "data"),
        (json.dumps(envelope("promise.get", {"id": "x" * 10_240})).encode(), "id"),
        (json.dumps(envelope("promise.get", {"id": "a\0b"})).encode(), "id"),
    ],
)
async def test_what_cannot_be_understood_is_a_400_that_names_the_part(
    body: bytes, text: str
) -> None:
    """Every malformed envelope gets 400 with a text, as the protocol's envelope."""
    async with running_door() as door:
        status, _, answer = await door.post(body)
        assert status == answer["head"]["status"] == 400
        assert answer["data"].startswith(text)


async def test_what_can_be_salvaged_of_a_broken_envelope_is_echoed() -> None:
    """kind and corrId come back where they are text, whatever else is wrong, at little cost."""
    filler = [{}] * 300_000
    async with running_door() as door:
        for body, kind, corr_id in (
            ({"kind": "k", "head": {"corrId": "c", "version": 3}, "data": filler}, "k", "c"),
            ({"kind": "k", "head": {"corrId": 7}}, "k", "0"),
            ({"kind": "k", "head": filler}, "k", "0"),
            ({"kind": 3, "head": {"corrId": "c"}}, "unknown", "c"),
            ({"kind": "", "head": {"corrId": ""}}, "unknown", ""),
        ):
            status, _, answer = await door.post(body)
            assert status == 400
            assert (answer["kind"], answer["head"]["corrId"]) == (kind, corr_id)


async def test_a_version_that_is_not_supported_is_told_which_are() -> None:
    """The 400 for a stale version names the supported ones and echoes kind and corrId."""
    async with running_door() as door:
        stale = {"kind": "promise.get", "head": {"corrId": "7", "version": "2020"}, "data": {}}
        status, _, answer = await door.post(stale)
        assert status == 400
        assert VERSION in answer["data"]
        assert (answer["kind"], answer["head"]["corrId"]) == ("promise.get", "7")


async def test_other_paths_and_methods_are_refused_in_the_protocols_form() -> None:
    """404 and 405 carry the unknown kind and correlation 0, and 405 says what is allowed."""
    async with running_door() as door:
        for path, method, expected in (
            ("/nothing", "GET", 404),
            ("/poll", "GET", 404),
            ("/", "GET", 405),
            ("/batch", "PUT", 405),
            ("/health", "POST", 405),
            ("/poll/g/i", "DELETE", 405),
        ):
            head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
            status, headers, body = await door.raw(head.encode())
            answer = json.loads(body)
            assert status == answer["head"]["status"] == expected
            assert (answer["kind"], answer["head"]["corrId"]) == ("unknown", "0")
            assert isinstance(answer["data"], str)
            assert ("allow" in headers) == (expected == 405)


async def test_a_failure_inside_is_a_500_without_its_traceback() -> None:
    """An exception of the engine becomes 500 and tells nothing about the code."""

    async def fail(request: r.Request) -> Response:
        raise ZeroDivisionError("secret detail")

    async with running_door() as door:
        door.engine.answer = fail
        request = envelope("promise.get", {"id": "p"})
        status, _, answer = await door.post(request)
        assert status == answer["head"]["status"] == 500
        assert answer["head"]["corrId"] == "c1"
        assert "secret" not in answer["data"]
        status, _, answers = await door.post([request, envelope("promise.fly", {})], "/batch")
        assert status == 200
        assert [item["head"]["status"] for item in answers] == [500, 400]


async def test_what_may_be_retried_says_when() -> None:
    """429 and 503 carry Retry-After; other refusals do not."""
    async with running_door() as door:
        for status, expected in ((429, True), (503, True), (409, False)):

            async def answer(request: r.Request, status: int = status) -> Response:
                return Response(status, "no")

            door.engine.answer = answer
            got, headers, _ = await door.post(envelope("promise.get", {"id": "p"}))
            assert got == status
            assert ("retry-after" in headers) == expected


async def test_each_item_of_a_batch_succeeds_or_fails_alone() -> None:
    """The answers are in order, the HTTP status is 200, and good items go to the engine together."""
    async with running_door() as door:
        items = [
            envelope("promise.get", {"id": "a"}, "1"),
            17,
            envelope("promise.get", {"id": "missing"}, "3"),
            envelope("promise.get", {}, "4"),
            envelope("promise.wait", {"id": "p", "timeout": 1}, "5"),
            envelope("task.claim", {"queues": ["q"], "pid": "w", "ttl": 1, "wait": 1}, "6"),
            envelope("promise.wait", {"id": "p", "timeout": 0}, "7"),
        ]
        status, _, answers = await door.post(items, "/batch")
        assert status == 200
        got = [(answer["head"]["corrId"], answer["head"]["status"]) for answer in answers]
        assert got == [
            ("1", 200), ("0", 400), ("3", 404), ("4", 400), ("5", 400), ("6", 400), ("7", 200),
        ]  # fmt: skip
        assert door.engine.batches == [3]


@pytest.mark.parametrize(("count", "expected"), [(0, 400), (1, 200), (1_000, 200), (1_001, 400)])
async def test_a_batch_has_1_to_1000_requests(count: int, expected: int) -> None:
    """Outside of the bound nothing is applied."""
    async with running_door() as door:
        item = envelope("promise.get", {"id": "a"})
        status, _, _ = await door.post([item] * count, "/batch")
        assert status == expected
        assert len(door.engine.asked) == (count if expected == 200 else 0)


async def test_health_lives_while_the_store_does_not_answer() -> None:
    """/ready follows the store, /health only the process."""
    works = True

    async def ping() -> None:
        if not works:
            raise StoreFailedError("the disk is gone")

    async with running_door(ping=ping) as door:
        assert (await door.get("/health"))[0] == (await door.get("/ready"))[0] == 200
        works = False
        assert (await door.get("/health"))[0] == 200
        status, headers, body = await door.get("/ready")
        assert status == json.loads(body)["head"]["status"] == 503
        assert "retry-after" in headers


async def test_metrics_are_prometheus_text() -> None:
    """The engine's, the store's and the door's numbers are all there."""
    async with running_door() as door:
        status, headers, body = await door.get("/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=")
        text = body.decode()
        assert 'kept_records{kind="promises"} 0.0' in text
        assert 'kept_commit_seconds_bucket{le="+Inf"} 0.0' in text
        assert "kept_connections 1.0" in text


async def test_one_connection_serves_many_requests_in_order() -> None:
    """Requests that a client sends without waiting are answered one after another."""
    async with running_door() as door, door.connect() as (reader, writer):
        for number in range(50):
            writer.write(post_bytes(envelope("promise.get", {"id": "p"}, str(number))))
        for number in range(50):
            _, _, body = await read_answer(reader)
            assert json.loads(body)["head"]["corrId"] == str(number)


async def test_headers_that_installed_clients_send_do_no_harm() -> None:
    """A header whose name holds a colon, raw UTF-8 in a value, an offer of HTTP/2."""
    async with running_door() as door:
        request = envelope("promise.get", {"id": "p"})
        strange = "resonate:origin: wörk-1\r\n"
        assert (await door.post(request, headers=strange))[0] == 200
        upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
        async with door.connect() as (reader, writer):
            for headers in (upgrade, "", upgrade):
                writer.write(post_bytes(request, headers=headers))
                assert (await read_answer(reader))[0] == 200


async def test_a_web_page_cannot_make_a_browser_post_here() -> None:
    """A request of a browser that needs no permission in advance (no JSON) is refused."""
    async with running_door() as door:
        body = json.dumps(envelope("promise.get", {"id": "p"}))
        for kind, expected in (("text/plain", 400), ("application/json", 200)):
            head = (
                f"POST / HTTP/1.1\r\nHost: h\r\nOrigin: http://evil\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            assert (await door.raw(head.encode() + body.encode()))[0] == expected
