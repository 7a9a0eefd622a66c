"""The bounds that the types of requests declare, for requests that were never decoded.

Decoding checks them, so what comes by HTTP has been checked at the door. A program that embeds an
engine makes its requests itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

from msgspec import UNSET, inspect

from kept.protocol.requests import Request

# What is wrong with the value of a field, whose name is given.
_Check: TypeAlias = Callable[[Any, str], str | None]

_NUMBERS: Final[dict[type[inspect.Type], tuple[type, ...]]] = {
    inspect.IntType: (int,),
    inspect.FloatType: (int, float),
}


def bounds_problem(request: Request) -> str | None:
    """Which field of a request is out of its bounds; None where all are within."""
    check = _check_of_struct(type(request))
    return check(request, "") if check else None


@cache
def _check_of_struct(struct: type[Any]) -> _Check | None:
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    named = [(field.name, field.encode_name, _check_of(field.type)) for field in described.fields]
    checks = [(name, wire, check) for name, wire, check in named if check is not None]
    return _all_of(checks) if checks else None


def _all_of(checks: list[tuple[str, str, _Check]]) -> _Check:
    def check(value: Any, place: str) -> str | None:
        for name, wire, field_check in checks:
            field = getattr(value, name)
            # What may be absent is absent as None or unset, which has no bounds.
            if field is None or field is UNSET:
                continue
            problem = field_check(field, f"{place}.{wire}" if place else wire)
            if problem is not None:
                return problem
        return None

    return check


def _check_of(described: inspect.Type) -> _Check | None:
    if isinstance(described, inspect.IntType | inspect.FloatType):
        return _number(described)
    if isinstance(described, inspect.StrType):
        return _text if described.min_length else None
    if isinstance(described, inspect.ListType):
        return _list(described)
    if isinstance(described, inspect.StructType):
        return _check_of_struct(described.cls)
    if isinstance(described, inspect.UnionType):
        return _one_of(described)
    return None


def _number(described: inspect.IntType | inspect.FloatType) -> _Check | None:
    low, high = described.ge, described.le
    if low is None or high is None:
        return None
    types = _NUMBERS[type(described)]

    def check(value: Any, place: str) -> str | None:
        if type(value) in types and low <= value <= high:
            return None
        what = "a whole number" if int in types and len(types) == 1 else "a number"
        return f"{place}: must be {what} from {low} to {high}"

    return check


def _text(value: Any, place: str) -> str | None:
    return None if value else f"{place}: must not be empty"


def _list(described: inspect.ListType) -> _Check | None:
    low, high = described.min_length or 0, described.max_length
    item_check = _check_of(described.item_type)
    if not low and high is None and item_check is None:
        return None

    def check(value: Any, place: str) -> str | None:
        if len(value) < low:
            return f"{place}: must name at least {low}"
        if high is not None and len(value) > high:
            return f"{place}: {len(value)} of them, the limit is {high}"
        if item_check is not None:
            for item in value:
                problem = item_check(item, place)
                if problem is not None:
                    return problem
        return None

    return check


def _one_of(described: inspect.UnionType) -> _Check | None:
    """The check of the one member that is not None, or of the structure that a value is."""
    structs = [each.cls for each in described.types if isinstance(each, inspect.StructType)]
    if structs:
        checks = {struct: _check_of_struct(struct) for struct in structs}
        if not any(checks.values()):
            return None

        def check(value: Any, place: str) -> str | None:
            found = checks.get(type(value))
            return found(value, place) if found else None

        return check
    others = [each for each in described.types if not isinstance(each, inspect.NoneType)]
    return _check_of(others[0]) if len(others) == 1 else None
