"""Tokens through the whole door (protocol A8): which are valid, and what each allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kept.errors import ConfigurationError, UnauthenticatedError
from kept.protocol import requests as r
from kept.protocol.kinds import ALL_REQUESTS
from kept.runtime import SystemRuntime
from kept.server.auth import MAX_REMEMBERED_TOKENS, AuthOptions, open_authenticator
from kept.server.authority import NAMED_IDS
from tests.unit.server.support import RunningDoor, envelope, hand_made, running_door
from tests.unit.transports.manual_runtime import ManualRuntime

SECRET = "a secret of at least thirty-two bytes"
# Whole seconds at which the manual clock stands.
NOW = 1_000
LATER = {"exp": NOW + 60}


def token(**claims: Any) -> str:
    """A valid HS256 token, unless the claims say otherwise."""
    return jwt.encode({**LATER, **claims}, SECRET, algorithm="HS256")


def public_pem(key: Any) -> bytes:
    """A private key's public half as PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def authenticator(**options: Any) -> Any:
    """An authenticator whose clock stands at NOW."""
    return open_authenticator(AuthOptions(**options), ManualRuntime())


def guarded() -> Any:
    """A running door that wants HS256 tokens."""
    return running_door(authenticator=open_authenticator(AuthOptions(secret=SECRET), _Clock()))


class _Clock(SystemRuntime):
    """The real world, where it is always NOW."""

    def __init__(self) -> None:
        super().__init__(1)

    def now_ms(self) -> int:
        return NOW * 1_000


async def get(door: RunningDoor, id: str, given: str | None = None, headers: str = "") -> int:
    """The status of a promise.get with a token in its head."""
    head = {} if given is None else {"auth": given}
    status, _, answer = await door.post(envelope("promise.get", {"id": id}, **head), "/", headers)
    assert answer["head"]["status"] == status
    assert answer["head"]["corrId"] == "c1"
    return status


async def test_a_token_is_needed_in_the_head_or_in_the_header() -> None:
    """401 without one; either place will do; a wrong one is 401."""
    async with guarded() as door:
        admin = token(role="admin")
        assert await get(door, "p") == 401
        assert await get(door, "p", admin) == 200
        assert await get(door, "p", headers=f"Authorization: Bearer {admin}\r\n") == 200
        assert await get(door, "p", headers=f"authorization: bEARER {admin}\r\n") == 200
        assert await get(door, "p", headers=f"Authorization: Basic {admin}\r\n") == 401
        assert await get(door, "p", admin[:-4] + "AAAA") == 401
        assert await get(door, "p", "nonsense") == 401


async def test_envelope_and_version_come_before_auth_and_auth_before_fields() -> None:
    """The order of checks: 400 for the envelope without a token, 401 for the fields without one."""
    async with guarded() as door:
        assert (await door.post({"kind": "promise.get"}))[0] == 400
        assert (await door.post(envelope("promise.fly", {})))[0] == 400
        assert (await door.post(envelope("promise.get", {"id": 7})))[0] == 401
        nobody = envelope("promise.get", {"id": 7}, auth=token())
        assert (await door.post(nobody))[0] == 403
        someone = envelope("promise.get", {"id": 7}, auth=token(prefix="a"))
        assert (await door.post(someone))[0] == 400


@pytest.mark.parametrize(
    ("claims", "id", "expected"),
    [
        ({"role": "admin"}, "b", 200),
        ({"role": "admin", "prefix": "a"}, "b", 200),
        ({"prefix": "a"}, "ab", 200),
        ({"prefix": "a"}, "a", 200),
        ({"prefix": "a"}, "b", 403),
        ({"prefix": ""}, "b", 200),
        ({}, "b", 403),
        ({"role": "user"}, "b", 403),
        ({"prefix": None}, "b", 403),
        ({"prefix": 1}, "1", 401),
        ({"tenant": ""}, "b", 401),
        ({"tenant": 3}, "b", 401),
    ],
)
async def test_what_a_token_allows(claims: dict[str, Any], id: str, expected: int) -> None:
    """Admin may do all, a prefix limits, an empty one means all, none means nothing."""
    async with guarded() as door:
        assert await get(door, id, token(**claims)) == expected


IN, OUT = "in-1", "out-1"
NAMES: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
    ("promise.get", lambda id: {"id": id}),
    ("promise.create", lambda id: {"id": id, "timeoutAt": 9}),
    ("promise.settle", lambda id: {"id": id, "state": "resolved"}),
    ("promise.register_callback", lambda id: {"awaited": id, "awaiter": IN}),
    ("promise.register_callback", lambda id: {"awaited": IN, "awaiter": id}),
    ("promise.register_listener", lambda id: {"awaited": id, "address": "http://h"}),
    ("promise.wait", lambda id: {"id": id, "timeout": 0}),
    ("promise.children", lambda id: {"id": id}),
    ("promise.cancel", lambda id: {"id": id}),
    ("signal.send", lambda id: {"id": id, "name": "box"}),
    ("task.annotate", lambda id: {"id": id, "version": 1, "set": {}}),
    ("worker.announce", lambda id: {"pid": "w", "queues": [id], "functions": [], "ttl": 1_000}),
    ("dead.bulk", lambda id: {"id": id}),
    ("dead.purge", lambda id: {"ids": [id]}),
    ("task.get", lambda id: {"id": id}),
    ("task.explain", lambda id: {"id": id}),
    ("promise.deliveries", lambda id: {"id": id}),
    ("task.create", lambda id: {
        "pid": "w", "ttl": 1,
        "action": {"kind": "promise.create", "data": {"id": id, "timeoutAt": 9}},
    }),
    ("task.acquire", lambda id: {"id": id, "version": 0, "pid": "w", "ttl": 1}),
    ("task.release", lambda id: {"id": id, "version": 1}),
    ("task.fulfill", lambda id: {
        "id": id, "version": 1,
        "action": {"kind": "promise.settle", "data": {"id": id, "state": "resolved"}},
    }),
    ("task.fence", lambda id: {
        "id": IN, "version": 1,
        "action": {"kind": "promise.create", "data": {"id": id, "timeoutAt": 9}},
    }),
    ("task.fence", lambda id: {
        "id": id, "version": 1,
        "action": {"kind": "promise.settle", "data": {"id": IN, "state": "resolved"}},
    }),
    ("task.suspend", lambda id: {
        "id": IN, "version": 1,
        "actions": [
            {"kind": "promise.register_callback", "data": {"awaited": id, "awaiter": IN}}
        ],
    }),
    ("task.suspend", lambda id: {"id": IN, "version": 1, "actions": [], "released": [id]}),
    ("task.record", lambda id: {
        "id": IN, "version": 1, "step": {"id": id, "timeoutAt": 9}, "state": "resolved",
    }),
    ("task.heartbeat", lambda id: {
        "pid": "w", "tasks": [{"id": IN, "version": 1}, {"id": id, "version": 1}],
    }),
    ("task.halt", lambda id: {"id": id}),
    ("task.continue", lambda id: {"id": id}),
    ("task.claim", lambda id: {"queues": [IN, id], "pid": "w", "ttl": 1}),
    ("task.nack", lambda id: {"id": id, "version": 1}),
    ("schedule.create", lambda id: {
        "id": id, "cron": "* * * * *", "promiseId": "{{.id}}.{{.timestamp}}", "promiseTimeout": 1,
    }),
    ("schedule.create", lambda id: {
        "id": IN, "cron": "* * * * *", "promiseId": id, "promiseTimeout": 1,
    }),
    ("schedule.get", lambda id: {"id": id}),
    ("schedule.put", lambda id: {"id": id, "every": 1_000, "promiseId": IN, "promiseTimeout": 1}),
    ("schedule.put", lambda id: {"id": IN, "every": 1_000, "promiseId": id, "promiseTimeout": 1}),
    ("schedule.pause", lambda id: {"id": id}),
    ("schedule.resume", lambda id: {"id": id}),
    ("schedule.trigger", lambda id: {"id": id}),
    ("schedule.backfill", lambda id: {"id": id, "from": 1, "to": 2}),
    ("schedule.delete", lambda id: {"id": id}),
    ("dead.get", lambda id: {"id": id}),
    ("dead.replay", lambda id: {"ids": [IN, id]}),
    ("queue.put", lambda id: {"name": id}),
    ("queue.get", lambda id: {"name": id}),
    ("queue.delete", lambda id: {"name": id}),
    ("queue.pause", lambda id: {"name": id}),
    ("queue.resume", lambda id: {"name": id}),
    ("queue.stats", lambda id: {"name": id}),
    ("lock.acquire", lambda id: {"resource": id, "holder": "h", "ttl": 1}),
    ("lock.heartbeat", lambda id: {"resource": id, "holder": "h", "fence": 1}),
    ("lock.release", lambda id: {"resource": id, "holder": "h", "fence": 1}),
    ("lock.get", lambda id: {"resource": id}),
    ("slot.acquire", lambda id: {"key": id, "limit": 1, "holder": "h", "ttl": 1}),
    ("slot.heartbeat", lambda id: {"key": id, "holder": "h"}),
    ("slot.release", lambda id: {"key": id, "holder": "h"}),
    ("slot.get", lambda id: {"key": id}),
    ("bucket.take", lambda id: {"key": id, "limit": 1, "period": 1}),
    ("guard.advance", lambda id: {"key": id, "revision": 1}),
    ("guard.get", lambda id: {"key": id}),
    ("guard.delete", lambda id: {"key": id}),
]  # fmt: skip


async def test_every_id_that_a_request_names_must_start_with_the_prefix() -> None:
    """Each kind, at each place where it names an id: 403 outside of the prefix, past it inside."""
    async with guarded() as door:
        auth = token(prefix="in-")
        for kind, data in NAMES:
            outside = envelope(kind, data(OUT), auth=auth)
            assert (await door.post(outside))[0] == 403, (kind, data(OUT))
            inside = envelope(kind, data(IN), auth=auth)
            assert (await door.post(inside))[0] != 403, (kind, data(IN))


def test_every_kind_is_known_to_the_table_or_for_admins_only() -> None:
    """A new kind must be entered, and what this file tries must be all of it."""
    limited = {request.kind for request in NAMED_IDS}
    for request in ALL_REQUESTS:
        assert (request.kind in limited) == (not request.kind.startswith("debug."))
    searches = {"promise.search", "task.search", "schedule.search", "dead.list"}
    searches |= {"queue.list", "lock.search", "guard.search"}
    searches |= {"worker.list", "function.list", "function.get"}
    assert {kind for kind, _ in NAMES} | searches == limited


async def test_debug_requests_need_an_admin() -> None:
    """A prefix, even the empty one, is not enough to reset everything."""
    async with guarded() as door:
        for claims, expected in (({"prefix": ""}, 403), ({"role": "admin"}, 200)):
            body = envelope("debug.reset", {}, auth=token(**claims))
            assert (await door.post(body))[0] == expected


async def test_searches_are_limited_to_the_prefix_and_requests_to_the_tenant() -> None:
    """The engine is told both; an admin's search is not limited."""
    async with guarded() as door:
        for claims, expected in (
            ({"prefix": "in-", "tenant": "acme"}, ("acme", "in-")),
            ({"prefix": ""}, ("default", None)),
            ({"role": "admin", "prefix": "in-"}, ("default", None)),
        ):
            search = envelope("promise.search", {}, auth=token(**claims))
            assert (await door.post(search))[0] == 200
            assert (await door.post([search, search], "/batch"))[0] == 200
            assert [asked[1:] for asked in door.engine.asked] == [expected] * 3
            door.engine.asked.clear()


async def test_each_item_of_a_batch_has_its_own_authority() -> None:
    """Items with other tokens keep their order, their tenants and their refusals."""
    async with guarded() as door:
        acme, plain = token(prefix="", tenant="acme"), token(prefix="in-")
        given = [(acme, IN), (acme, OUT), (plain, OUT), (None, IN), (plain, IN), (acme, IN)]
        items = [
            envelope("promise.get", {"id": id}, str(n), **({"auth": auth} if auth else {}))
            for n, (auth, id) in enumerate(given)
        ]
        _, _, answers = await door.post(items, "/batch")
        assert [answer["head"]["status"] for answer in answers] == [200, 200, 403, 401, 200, 200]
        assert [answer["head"]["corrId"] for answer in answers] == list("012345")
        assert [asked[1] for asked in door.engine.asked] == ["acme", "acme", "default", "acme"]
        bearer = f"Authorization: Bearer {plain}\r\n"
        _, _, answers = await door.post(items[3:4], "/batch", bearer)
        assert answers[0]["head"]["status"] == 200


async def test_streams_and_metrics_are_guarded_and_health_is_not() -> None:
    """Listening needs a token that covers the group, metrics an admin's; health and ready none."""
    async with guarded() as door:

        async def status(path: str, **claims: Any) -> int:
            bearer = f"Authorization: Bearer {token(**claims)}\r\n" if claims else ""
            return (await door.get(path, bearer))[0]

        assert await status("/poll/in-g/w") == 401
        assert await status("/poll/in-g/w", prefix="in-") == 200
        assert await status("/poll/default/w", prefix="in-") == 403
        assert await status("/poll/default/w", role="admin") == 200
        assert await status("/poll/default/w", role="admin", tenant="acme") == 200
        assert await status("/metrics") == 401
        assert await status("/metrics", prefix="") == 403
        assert await status("/metrics", role="admin") == 200
        assert await status("/health") == await status("/ready") == 200


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": NOW},
        {"exp": NOW - 1},
        {"exp": float("nan")},
        {"exp": NOW + 9, "nbf": NOW + 1},
        {"exp": NOW + 9, "nbf": "now"},
    ],
)
def test_exp_is_required_and_times_are_kept(claims: dict[str, Any]) -> None:
    """A token without a usable exp, past it, or before its nbf is no token."""
    signed = hand_made({"alg": "HS256"}, {"role": "admin", **claims}, SECRET.encode())
    with pytest.raises(UnauthenticatedError):
        authenticator(secret=SECRET).authenticate(signed)


async def test_a_token_that_was_accepted_still_expires() -> None:
    """Signatures are remembered, verdicts are not."""
    runtime = ManualRuntime()
    checks = open_authenticator(AuthOptions(secret=SECRET), runtime)
    signed = token(role="admin")
    assert checks.authenticate(signed).admin
    await runtime.advance(59)
    assert checks.authenticate(signed).admin
    await runtime.advance(2)
    with pytest.raises(UnauthenticatedError, match="expired"):
        checks.authenticate(signed)


def test_no_more_tokens_are_remembered_than_the_bound() -> None:
    """Many tokens do not fill the memory."""
    checks = authenticator(secret=SECRET)
    for number in range(MAX_REMEMBERED_TOKENS + 5):
        checks.authenticate(token(prefix=str(number)))
    assert len(checks._verified) == MAX_REMEMBERED_TOKENS


def test_algorithms_are_fixed_by_the_key() -> None:
    """none, a public key used as an HMAC secret, another hash, an unknown extension: all refused."""
    claims = {"role": "admin", **LATER}
    secret = authenticator(secret=SECRET)
    for header, key in (
        ({"alg": "none"}, None),
        ({"alg": "None"}, None),
        ({"alg": ""}, None),
        ({}, None),
        ({"alg": "HS384"}, SECRET.encode()),
        ({"alg": ["HS256"]}, SECRET.encode()),
        ({"alg": "HS256", "crit": ["x"], "x": 1}, SECRET.encode()),
        ({"alg": "HS256", "b64": False}, SECRET.encode()),
        ({"alg": "HS256"}, b""),
    ):
        with pytest.raises(UnauthenticatedError):
            secret.authenticate(hand_made(header, claims, key))
    assert secret.authenticate(hand_made({"alg": "HS256"}, claims, SECRET.encode())).admin


def test_public_keys_verify_their_own_algorithms_only(tmp_path: Path) -> None:
    """RS, PS, ES and EdDSA by PEM; a token of another kind, or signed with the PEM's bytes, is not."""
    keys: list[tuple[Any, list[str]]] = [
        (rsa.generate_private_key(65537, 2048), ["RS256", "RS512", "PS256", "PS384"]),
        (ec.generate_private_key(ec.SECP256R1()), ["ES256"]),
        (ec.generate_private_key(ec.SECP384R1()), ["ES384"]),
        (ed25519.Ed25519PrivateKey.generate(), ["EdDSA"]),
    ]
    claims = {"role": "admin", **LATER}
    signed = [
        (number, jwt.encode(claims, key, algorithm=algorithm))
        for number, (key, algorithms) in enumerate(keys)
        for algorithm in algorithms
    ]
    for number, (key, _) in enumerate(keys):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(public_pem(key))
        checks = authenticator(public_key_file=path)
        for signer, given in signed:
            if signer == number:
                assert checks.authenticate(given).admin
            else:
                with pytest.raises(UnauthenticatedError):
                    checks.authenticate(given)
        for confused in (public_pem(key), public_pem(key).strip()):
            with pytest.raises(UnauthenticatedError):
                checks.authenticate(hand_made({"alg": "HS256"}, claims, confused))


def test_a_key_set_chooses_by_key_id_and_alg(tmp_path: Path) -> None:
    """JWKS: kid selects, alg narrows, encryption keys are left out, a wrong kid is refused."""
    key = rsa.generate_private_key(65537, 2048)
    entry = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    path = tmp_path / "keys.json"
    other = {**entry, "use": "enc", "kid": "enc"}
    path.write_text(json.dumps({"keys": [{**entry, "kid": "one", "alg": "RS256"}, other]}))
    checks = authenticator(jwks_file=path)
    claims = {"role": "admin", **LATER}
    for algorithm, kid, good in (
        ("RS256", "one", True),
        ("RS256", None, True),
        ("RS256", "two", False),
        ("RS256", "enc", False),
        ("PS256", "one", False),
    ):
        headers = {"kid": kid} if kid else None
        given = jwt.encode(claims, key, algorithm=algorithm, headers=headers)
        if good:
            assert checks.authenticate(given).admin
        else:
            with pytest.raises(UnauthenticatedError):
                checks.authenticate(given)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"keys": 3}',
        '{"keys": [1]}',
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "AAAA"}]}',
        '{"keys": [{"kty": "RSA"}]}',
        '{"keys": [{"kty": "OKP", "crv": "X25519", "x": "AAAA"}]}',
    ],
)
def test_a_key_file_that_cannot_be_used_stops_the_server(tmp_path: Path, text: str) -> None:
    """It is an error at the start, never a server without authentication."""
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        authenticator(jwks_file=path)
    with pytest.raises(ConfigurationError):
        authenticator(public_key_file=path)
    with pytest.raises(ConfigurationError):
        authenticator(public_key_file=tmp_path / "absent")


@pytest.mark.parametrize("secret", ["", "short", "-----BEGIN PUBLIC KEY-----\nMIIB" + "A" * 64])
def test_a_weak_secret_is_refused(secret: str) -> None:
    """An empty, a short secret or a key's text is a mistake."""
    with pytest.raises(ConfigurationError):
        authenticator(secret=secret)


def test_options_do_not_show_the_secret() -> None:
    """Options may be logged."""
    assert SECRET not in repr(AuthOptions(secret=SECRET))


def test_without_keys_everything_is_allowed() -> None:
    """No configuration, no authentication: the default tenant's admin."""
    authority = authenticator().authenticate(None)
    authority.require(r.DebugReset())
    assert authority.tenant == "default"
