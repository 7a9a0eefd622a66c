"""Tokens (protocol A8): a JWT, its signature checked with keys of which each fixes its algorithms.

PyJWT comes with the extra `auth` and is imported when keys are configured. The clock is ours, so
expiry is checked here.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from kept.errors import ConfigurationError, UnauthenticatedError
from kept.runtime import Runtime
from kept.server.authority import (
    DEFAULT_TENANT,
    Authenticator,
    Authority,
    NoAuthentication,
)

MAX_TOKEN_BYTES: Final = 8_192
MAX_KEYS: Final = 64
MAX_TENANT_BYTES: Final = 256
# Tokens whose signature was checked already; checking one costs more than a whole request.
MAX_REMEMBERED_TOKENS: Final = 1_024
# RFC 7518 section 3.2: a key at least as long as the hash.
MIN_SECRET_BYTES: Final = 32

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class AuthOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where keys come from; any of them may sign. Without one there is no authentication."""

    public_key_file: Path | None = None
    jwks_file: Path | None = None
    secret: str | None = msgspec.field(default=None)

    @property
    def configured(self) -> bool:
        return bool(self.public_key_file or self.jwks_file or self.secret is not None)

    def __repr__(self) -> str:
        """Without the secret: options end up in logs."""
        return f"AuthOptions(configured={self.configured})"


class _Key(msgspec.Struct, frozen=True):
    """A key with the only algorithms it may be used for; none of two kinds shares one, so a
    public key can never be taken for a secret."""

    key: Any
    algorithms: frozenset[str]
    key_id: str | None


class _Verified(msgspec.Struct, frozen=True):
    authority: Authority
    not_before: float
    expires: float


class TokenAuthenticator:
    """Checks tokens against a fixed set of keys."""

    def __init__(self, keys: list[_Key], jwt: ModuleType, runtime: Runtime) -> None:
        self._keys = keys
        self._jwt = jwt
        self._runtime = runtime
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    def authenticate(self, token: str | None) -> Authority:
        """The authority that a token gives; raises `UnauthenticatedError`."""
        if not token:
            raise UnauthenticatedError("a token is required: head.auth or Authorization: Bearer")
        verified = self._verified.get(token)
        if verified is None:
            verified = self._verify(token)
            self._verified[token] = verified
            if len(self._verified) > MAX_REMEMBERED_TOKENS:
                self._verified.popitem(last=False)
        now = self._runtime.now_ms() / 1_000
        if verified.expires <= now:
            raise UnauthenticatedError("the token has expired")
        if verified.not_before > now:
            raise UnauthenticatedError("the token is not valid yet")
        return verified.authority

    def _verify(self, token: str) -> _Verified:
        if len(token) > MAX_TOKEN_BYTES:
            raise UnauthenticatedError(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        return _read_claims(self._checked_claims(token))

    def _checked_claims(self, token: str) -> dict[str, Any]:
        try:
            header = self._jwt.get_unverified_header(token)
        except (self._jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise UnauthenticatedError("the token is not a JWT") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str):
            raise UnauthenticatedError("the token's header names no algorithm")
        if "crit" in header or "b64" in header:
            raise UnauthenticatedError("the token's header has an extension that is not supported")
        for key in self._keys:
            if algorithm not in key.algorithms:
                continue
            if key_id is not None and key.key_id is not None and key_id != key.key_id:
                continue
            try:
                claims = self._jwt.decode(token, key.key, algorithms=[algorithm], options=_OPTIONS)
            except (self._jwt.PyJWTError, ValueError, TypeError, RecursionError):
                continue
            return dict(claims)
        raise UnauthenticatedError("no key here verifies the token")


# Only the signature: the clock is the runtime's, and the other claims are read by ourselves.
_OPTIONS: Final = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _read_claims(claims: dict[str, Any]) -> _Verified:
    tenant = claims.get("tenant", DEFAULT_TENANT)
    if not isinstance(tenant, str) or not tenant or "\0" in tenant:
        raise UnauthenticatedError("the token's claim tenant must be a non-empty text")
    try:
        tenant_bytes = len(tenant.encode())
    except UnicodeEncodeError:
        raise UnauthenticatedError("the token's claim tenant is not valid Unicode text") from None
    if tenant_bytes > MAX_TENANT_BYTES:
        raise UnauthenticatedError(f"the token's tenant is longer than {MAX_TENANT_BYTES} bytes")
    prefix = claims.get("prefix")
    if prefix is not None and not isinstance(prefix, str):
        raise UnauthenticatedError("the token's claim prefix must be a text")
    expires = _instant(claims, "exp")
    if expires is None:
        raise UnauthenticatedError("the token's claim exp is required")
    authority = Authority(admin=claims.get("role") == "admin", prefix=prefix, tenant=tenant)
    return _Verified(authority, _instant(claims, "nbf") or 0.0, expires)


def _instant(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise UnauthenticatedError(f"the token's claim {name} must be a number")
    # Only compared, so an integer too large for a float stays what it is.
    return value


def open_authenticator(options: AuthOptions, runtime: Runtime) -> Authenticator:
    """The authenticator for the options. Raises `ConfigurationError` for a key that cannot be used
    and for a missing extra."""
    if not options.configured:
        return NoAuthentication()
    try:
        jwt = importlib.import_module("jwt")
        importlib.import_module("cryptography")
    except ImportError:
        raise ConfigurationError(
            "authentication needs the extra auth: pip install 'kept[auth]'"
        ) from None
    keys: list[_Key] = []
    if options.secret is not None:
        keys.append(_secret_key(options.secret))
    if options.public_key_file is not None:
        keys.append(_pem_key(options.public_key_file))
    if options.jwks_file is not None:
        keys.extend(_jwks_keys(options.jwks_file, jwt))
    return TokenAuthenticator(keys, jwt, runtime)


def _secret_key(secret: str) -> _Key:
    key = secret.encode()
    if len(key) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"the secret for HS256 needs at least {MIN_SECRET_BYTES} bytes")
    if b"-----BEGIN" in key or key.startswith(b"ssh-"):
        raise ConfigurationError("the secret for HS256 is a key file's text; give it as a file")
    return _Key(key, frozenset({"HS256"}), None)


def _pem_key(path: Path) -> _Key:
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    exceptions = importlib.import_module("cryptography.exceptions")
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, exceptions.UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: not a public key in PEM: {error}") from None
    return _Key(key, _algorithms_of(key, path), None)


def _jwks_keys(path: Path, jwt: ModuleType) -> list[_Key]:
    try:
        entries = msgspec.json.decode(_read(path), type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not a JSON Web Key Set: {error}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigurationError(f"{path}: a JSON Web Key Set has a list of objects named keys")
    if len(entries) > MAX_KEYS:
        raise ConfigurationError(f"{path}: {len(entries)} keys, the limit is {MAX_KEYS}")
    keys = [_jwk_key(entry, path, jwt) for entry in entries if entry.get("use", "sig") == "sig"]
    if not keys:
        raise ConfigurationError(f"{path}: has no key that verifies signatures")
    return keys


def _jwk_key(entry: dict[str, Any], path: Path, jwt: ModuleType) -> _Key:
    if entry.get("kty") == "oct":
        raise ConfigurationError(f"{path}: has a symmetric key; HS256 is configured by secret")
    try:
        key = jwt.PyJWK.from_dict({name: v for name, v in entry.items() if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: a key cannot be used: {error}") from None
    # A private key in the set serves as well as its public half; only that is kept.
    key = key.public_key() if hasattr(key, "public_key") else key
    algorithms = _algorithms_of(key, path)
    if "alg" in entry:
        algorithms = algorithms & {entry["alg"]}
        if not algorithms:
            raise ConfigurationError(f"{path}: a key's alg {entry['alg']!r} does not fit its type")
    return _Key(key, algorithms, entry.get("kid"))


def _algorithms_of(key: Any, path: Path) -> frozenset[str]:
    asymmetric = importlib.import_module("cryptography.hazmat.primitives.asymmetric")
    for name in ("rsa", "ec", "ed25519", "ed448"):
        importlib.import_module(f"{asymmetric.__name__}.{name}")
    if isinstance(key, asymmetric.rsa.RSAPublicKey):
        return _RSA
    if isinstance(key, asymmetric.ec.EllipticCurvePublicKey) and key.curve.name in _BY_CURVE:
        return frozenset({_BY_CURVE[key.curve.name]})
    if isinstance(key, asymmetric.ed25519.Ed25519PublicKey | asymmetric.ed448.Ed448PublicKey):
        return frozenset({"EdDSA"})
    raise ConfigurationError(f"{path}: keys of this type are not supported; use RSA, EC or Ed25519")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
