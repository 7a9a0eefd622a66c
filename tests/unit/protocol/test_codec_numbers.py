"""Numbers that no field can hold are the client's error, however they are written."""

from __future__ import annotations

import pytest

from kept.protocol import codec
from kept.protocol import requests as r

NUMBERS = ["1e999999999", "-1e999999999", "9" * 100_000, "9" * 5_000 + ".5", "1e308", "-0.5"]


def _create(number: str, extra: str = "") -> bytes:
    head = '{"corrId":"c","version":"2026-04-01"}'
    data = f'{{"id":"a","timeoutAt":{number}{extra}}}'
    return f'{{"kind":"promise.create","head":{head},"data":{data}}}'.encode()


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:12])
def test_a_deadline_out_of_range_is_malformed(number: str) -> None:
    """The refusal names the field and keeps kind and correlation."""
    with pytest.raises(codec.Malformed, match="timeoutAt") as refused:
        codec.decode_data(codec.decode_envelope(_create(number)))
    assert (refused.value.kind, refused.value.corr_id) == ("promise.create", "c")


@pytest.mark.parametrize(
    "extra", [',"x":' + "9" * 9_999, ',"x":1e9999', ',"x":' + "[" * 99_999 + "]" * 99_999]
)
def test_a_fractional_deadline_beside_what_cannot_be_decoded_is_malformed(extra: str) -> None:
    """The second look at a fractional deadline raises nothing of its own."""
    with pytest.raises(codec.Malformed):
        codec.decode_data(codec.decode_envelope(_create("1.5", extra)))


def test_a_fractional_deadline_is_rounded_up() -> None:
    """Installed clients compute deadlines as floats."""
    request = codec.decode_data(codec.decode_envelope(_create("1795415778201.3333")))
    assert isinstance(request, r.PromiseCreate)
    assert request.timeout_at == 1_795_415_778_202
