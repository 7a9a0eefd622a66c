"""Bytes to requests and responses to bytes (protocol A1). Nobody else touches JSON envelopes.

Decoding is in two movements, because the order of checks asks for it: `decode_envelope` (envelope,
version, kind), then, once the caller is known, `decode_data` (fields).
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any, Final

import msgspec

from kept.protocol.kinds import REQUEST_BY_KIND
from kept.protocol.limits import MAX_INTEGER, PROTOCOL_VERSION, SUPPORTED_VERSIONS
from kept.protocol.requests import Request, RequestHead
from kept.protocol.responses import BAD_REQUEST, Detail, Response

UNKNOWN_KIND: Final = "unknown"
UNKNOWN_CORRELATION: Final = "0"


class Envelope(msgspec.Struct):
    """A request as it came: kind and head understood, data not yet."""

    kind: str
    head: RequestHead
    data: msgspec.Raw


class _ResponseHead(msgspec.Struct):
    corr_id: str = msgspec.field(name="corrId")
    status: int
    version: str = PROTOCOL_VERSION
    detail: Detail | msgspec.UnsetType = msgspec.field(name="kept:detail", default=msgspec.UNSET)


class _ResponseEnvelope(msgspec.Struct):
    kind: str
    head: _ResponseHead
    data: Any


class ReceivedResponse(msgspec.Struct):
    """A response as a client reads it."""

    kind: str
    head: _ResponseHead
    data: msgspec.Raw


class _LooseEnvelope(msgspec.Struct):
    """As much of a request as can be echoed. The rest is skipped, not decoded: a large body that
    is refused must cost little."""

    kind: msgspec.Raw = msgspec.Raw()
    head: msgspec.Raw = msgspec.Raw()


class _LooseHead(msgspec.Struct, rename="camel"):
    corr_id: msgspec.Raw = msgspec.Raw()


class Malformed(Exception):
    """A request that cannot be understood: answer it with 400 and `text`."""

    def __init__(self, text: str, kind: str = UNKNOWN_KIND, corr_id: str = UNKNOWN_CORRELATION):
        super().__init__(text)
        self.text = text
        self.kind = kind
        self.corr_id = corr_id


_encoder: Final = msgspec.json.Encoder()
_envelope_decoder: Final = msgspec.json.Decoder(Envelope)
_batch_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])
_any_decoder: Final = msgspec.json.Decoder()
_loose_decoder: Final = msgspec.json.Decoder(_LooseEnvelope)
_loose_head_decoder: Final = msgspec.json.Decoder(_LooseHead)
_text_decoder: Final = msgspec.json.Decoder(str)
_data_decoders: Final = {
    kind: msgspec.json.Decoder(request) for kind, request in REQUEST_BY_KIND.items()
}
# What a decoder raises on input that is not what it should be; RecursionError is deep nesting.
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_envelope(body: bytes | msgspec.Raw) -> Envelope:
    """The envelope of one request; raises `Malformed` with what could be salvaged."""
    try:
        envelope = _envelope_decoder.decode(body)
    except _UNDECODABLE as error:
        raise _salvaged(body, _text_of(error)) from None
    kind, head = envelope.kind, envelope.head
    if not kind:
        raise Malformed("kind: must not be empty", UNKNOWN_KIND, head.corr_id)
    if head.version not in SUPPORTED_VERSIONS:
        supported = ", ".join(SUPPORTED_VERSIONS)
        raise Malformed(
            f"head.version: {head.version[:64]!r} is not supported; supported: {supported}",
            kind,
            head.corr_id,
        )
    if kind not in _data_decoders:
        raise Malformed(f"kind: {kind[:64]!r} is unknown", kind, head.corr_id)
    if not bytes(envelope.data)[:1] == b"{":
        raise Malformed("data: must be an object", kind, head.corr_id)
    return envelope


def decode_data(envelope: Envelope) -> Request:
    """The typed request of an envelope; raises `Malformed` naming the field."""
    try:
        return _data_decoders[envelope.kind].decode(envelope.data)
    except msgspec.ValidationError as error:
        request = _with_whole_deadline(envelope)
        if request is not None:
            return request
        text = f"data: {_text_of(error)}"
        raise Malformed(text, envelope.kind, envelope.head.corr_id) from None
    except _UNDECODABLE as error:
        text = f"data: {_text_of(error)}"
        raise Malformed(text, envelope.kind, envelope.head.corr_id) from None


def _with_whole_deadline(envelope: Envelope) -> Request | None:
    """A client in the field computes deadlines as floats: such a one is rounded up, once the
    plain decoding has refused it."""
    try:
        data = _any_decoder.decode(envelope.data)
    except _UNDECODABLE:
        return None
    create = data
    for field in ("action", "data"):
        create = create[field] if isinstance(create.get(field), dict) else create
    deadline = create.get("timeoutAt")
    if not isinstance(deadline, float) or not 0 <= deadline <= MAX_INTEGER:
        return None
    create["timeoutAt"] = math.ceil(deadline)
    try:
        return msgspec.convert(data, REQUEST_BY_KIND[envelope.kind])
    except msgspec.ValidationError:
        return None


def decode_batch(body: bytes) -> list[msgspec.Raw]:
    """The envelopes of a batch, not yet decoded; raises `Malformed`."""
    try:
        return _batch_decoder.decode(body)
    except _UNDECODABLE as error:
        raise Malformed(f"body: {_text_of(error)}") from None


def encode_response(kind: str, corr_id: str, response: Response) -> bytes:
    """One response as it travels."""
    head = _ResponseHead(corr_id, response.status)
    if response.detail is not None:
        head.detail = response.detail
    return _encoder.encode(_ResponseEnvelope(kind, head, response.data))


def encode_malformed(error: Malformed) -> bytes:
    """The 400 that a request which cannot be understood gets."""
    return encode_response(error.kind, error.corr_id, Response(BAD_REQUEST, error.text))


def join_batch(items: list[bytes]) -> bytes:
    """Encoded responses as one JSON array."""
    return b"[" + b",".join(items) + b"]"


def encode_request(request: Request, head: RequestHead) -> bytes:
    """One request as it travels; the version is filled in."""
    head = msgspec.structs.replace(head, version=PROTOCOL_VERSION)
    return _encoder.encode({"kind": request.kind, "head": head, "data": request})


def encode_json(value: Any) -> bytes:
    """Any of our structures as JSON."""
    return _encoder.encode(value)


def encode_ascii(value: Any) -> bytes:
    """JSON in ASCII only: some clients of event streams break other characters apart."""
    text = _encoder.encode(value)
    if text.isascii():
        return text
    return json.dumps(_any_decoder.decode(text), separators=(",", ":")).encode()


def _text_of(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "is not valid UTF-8"
    return str(error)


def _salvaged(body: bytes | msgspec.Raw, text: str) -> Malformed:
    """What can still be echoed of a request whose envelope does not fit."""
    kind, corr_id = UNKNOWN_KIND, UNKNOWN_CORRELATION
    try:
        loose = _loose_decoder.decode(body)
    except msgspec.ValidationError:
        return Malformed(f"envelope: {text}")
    except _UNDECODABLE:
        return Malformed(f"body: {text}")
    kind = _text_in(loose.kind) or kind
    with suppress(*_UNDECODABLE):
        found = _text_in(_loose_head_decoder.decode(loose.head).corr_id)
        corr_id = corr_id if found is None else found
    return Malformed(f"envelope: {text}", kind, corr_id)


def _text_in(raw: msgspec.Raw) -> str | None:
    """The text that a piece of JSON is; none where it is something else."""
    try:
        return _text_decoder.decode(raw)
    except _UNDECODABLE:
        return None
