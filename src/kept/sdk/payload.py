"""Arguments, results and errors as payloads (protocol A9): JSON, readable in the database.

Nothing is ever unpickled. What foreign clients write (base64 of JSON, without our header) is read
as well.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Final

import msgspec

from kept.errors import (
    InvalidArgumentsError,
    PromiseCanceledError,
    PromiseError,
    PromiseRejectedError,
    PromiseTimedOutError,
    ResultGoneError,
)
from kept.protocol import tags as tag
from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.spoken import spoken, timestamp

FORMAT_HEADER: Final = "kept-format"
FORMAT: Final = "1"
CODEC_HEADER: Final = "kept-codec"
NUMBERING_HEADER: Final = "kept-numbering"
PYTHON_HEADER: Final = "kept-python"
_HEADERS: Final = {FORMAT_HEADER: FORMAT}
MAX_ERROR_CHARACTERS: Final = 10_000


class Arguments(msgspec.Struct, frozen=True):
    """What a function is called with."""

    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class Failure(msgspec.Struct, frozen=True):
    """An error as it is stored: the type's name, its message."""

    type: str
    message: str


_foreign_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def _plain(value: Any) -> Any:
    """Objects that msgspec does not know by itself, such as pydantic's."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


_encoder: Final = msgspec.json.Encoder(enc_hook=_plain)


def encode(value: Any, headers: dict[str, str] | None = None) -> Value:
    """A result as a payload. Raises `TypeError` for what JSON cannot hold."""
    try:
        text = _encoder.encode(value).decode()
    except (msgspec.EncodeError, RecursionError, OverflowError, ValueError) as error:
        raise TypeError(f"cannot be stored as JSON: {error}") from error
    if "null" in text and _loses_number(msgspec.to_builtins(value, enc_hook=_plain)):
        raise TypeError("cannot be stored as JSON: NaN and infinity are no JSON numbers")
    return Value(headers={**_HEADERS, **(headers or {})}, data=text)


def _loses_number(value: Any) -> bool:
    """Whether a float would silently become null."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_loses_number, value.values()))
    return isinstance(value, list | tuple | set) and any(map(_loses_number, value))


def encode_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], headers: dict[str, str] | None = None
) -> Value:
    return encode(Arguments(list(args), kwargs), headers)


def encode_error(error: BaseException) -> Value:
    """An error as a payload: its type's name and message."""
    if isinstance(error, PromiseRejectedError):
        return encode(Failure(error.type, error.message))
    return encode(Failure(type(error).__name__, error_text(error)))


def error_text(error: BaseException) -> str:
    """What an error says, as far as it can be shown and stored."""
    try:
        text = str(error)
    except Exception as fault:  # noqa: BLE001 - a broken __str__ must not hide the error itself
        text = f"(its text cannot be shown: {type(fault).__name__})"
    return text[:MAX_ERROR_CHARACTERS].encode(errors="replace").decode()


def decode(value: Value, annotation: Any = Any) -> Any:
    """The result in a payload, converted to `annotation`.

    Raises `InvalidArgumentsError` for a format, codec or content that does not fit.
    """
    text = _json_text(value)
    if text is None:
        return None
    try:
        return from_json(text, annotation)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentsError(f"the stored value does not fit: {error}") from error


def from_json(text: bytes | str, annotation: Any) -> Any:
    """JSON text as `annotation`. Raises `ValueError` where it does not fit."""
    if annotation is Any or annotation is None:
        return msgspec.json.decode(text)
    try:
        return msgspec.json.decode(text, type=annotation, dec_hook=_object)
    except TypeError:
        return _converted(msgspec.json.decode(text), annotation)


def convert(value: Any, annotation: Any) -> Any:
    """A value that came from JSON, as `annotation`. Raises `InvalidArgumentsError`."""
    try:
        return _converted(value, annotation)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentsError(str(error)) from error


def _converted(value: Any, annotation: Any) -> Any:
    """As `annotation`; one that says nothing about JSON, such as a callable's, is not enforced."""
    try:
        return msgspec.convert(value, annotation, dec_hook=_object)
    except TypeError:
        return value


def _object(kind: type, value: Any) -> Any:
    """Objects that msgspec does not know by itself: pydantic models validate themselves."""
    validate = getattr(kind, "model_validate", None)
    if callable(validate):
        return validate(value)
    if isinstance(value, kind):
        return value
    raise ValueError(f"a {type(value).__name__} from JSON is no {kind.__name__}")


def decode_arguments(value: Value) -> Arguments:
    """The arguments in a root's or step's param; those of foreign clients too."""
    text = _json_text(value)
    if text is None:
        return Arguments()
    try:
        if _is_ours(value):
            return msgspec.json.decode(text, type=Arguments)
        foreign = _foreign_decoder.decode(text)
        args, kwargs = foreign.get("args", []), foreign.get("kwargs", {})
        return msgspec.convert({"args": args or [], "kwargs": kwargs or {}}, Arguments)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentsError(f"the arguments cannot be read: {error}") from error


def outcome_error(record: PromiseRecord) -> PromiseError | None:
    """What awaiting a settled promise raises; None where it resolved and its result is there."""
    left = (record.value.headers or {}).get(tag.LEFT_HEADER, "")
    if left.isdecimal() and record.settled_at is not None:
        return _gone(record, record.settled_at, int(left))
    if record.state is PromiseState.RESOLVED:
        return None
    if record.state is PromiseState.REJECTED_CANCELED:
        reason = (record.value.headers or {}).get(tag.CANCEL_REASON_HEADER)
        why = f": {reason}" if reason else ""
        return PromiseCanceledError(record.id, f"{record.id} was canceled{why}")
    if record.state is PromiseState.REJECTED_TIMEDOUT:
        return PromiseTimedOutError(record.id, f"{record.id} did not settle before its deadline")
    failure = _failure(record.value)
    return PromiseRejectedError(record.id, failure.type, failure.message)


def _gone(record: PromiseRecord, settled_at: int, left_at: int) -> ResultGoneError:
    verdict = record.state.value.removeprefix("rejected_")
    text = (
        f"{record.id} ended ({verdict}) at {timestamp(settled_at)}, and does not run again; its result "
        f"was kept for {spoken(left_at - settled_at)}, the retention of its queue, and is gone. To keep "
        "results longer: kept queue put QUEUE --retention DURATION"
    )
    return ResultGoneError(
        record.id,
        text,
        record.state.value,
        settled_at,
        left_at,
    )


def _failure(value: Value) -> Failure:
    try:
        stored = decode(value)
    except InvalidArgumentsError:
        return Failure("Error", (value.data or "")[:MAX_ERROR_CHARACTERS])
    if isinstance(stored, dict):
        kind = stored.get("type") or stored.get("name") or "Error"
        return Failure(str(kind), str(stored.get("message", "")))
    return Failure("Error", "" if stored is None else str(stored))


def _is_ours(value: Value) -> bool:
    return (value.headers or {}).get(FORMAT_HEADER) is not None


def _json_text(value: Value) -> bytes | None:
    """The JSON of a payload, whoever wrote it; None where there is none."""
    headers = value.headers or {}
    if headers.get(CODEC_HEADER):
        raise InvalidArgumentsError(f"unknown codec {headers[CODEC_HEADER]!r}")
    if headers.get(FORMAT_HEADER, FORMAT) != FORMAT:
        raise InvalidArgumentsError(f"unknown format {headers[FORMAT_HEADER]!r}")
    if not value.data:
        return None
    if _is_ours(value):
        return value.data.encode()
    try:
        return base64.b64decode(value.data, validate=True) or None
    except (binascii.Error, ValueError):
        raise InvalidArgumentsError("the value is neither ours nor base64 of JSON") from None


def as_seconds(value: Any) -> float:
    """A number of seconds, or a timedelta, as seconds. Raises `TypeError` and `ValueError`."""
    total = getattr(value, "total_seconds", None)
    if callable(total):
        seconds = float(total())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise TypeError(f"must be a timedelta or a number of seconds, not {value!r}")
    if not seconds >= 0:
        raise ValueError(f"a duration must be 0 or more, not {value!r}")
    return seconds
