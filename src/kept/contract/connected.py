"""What the cases of the connection suite are made of."""

from __future__ import annotations

import itertools
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from kept.client.connection import Connection, call
from kept.protocol import requests as r
from kept.protocol import responses as a

R = TypeVar("R", bound=a.Result)

_ids = itertools.count(1)


def fresh_id(name: str = "p") -> str:
    """An id that no other test of this process uses."""
    return f"{name}-{next(_ids)}"


async def ask(connection: Connection, request: r.Request, result: type[R]) -> R:
    """The data of a successful answer, which must be exactly of the kind's type."""
    response = await call(connection, request)
    assert type(response.data) is result, response
    return response.data


class Connects:
    """Each case opens a connection to a running engine of its own."""

    def connected(self) -> AbstractAsyncContextManager[Connection]:
        """A connection to an engine that is empty and runs with debug requests."""
        raise NotImplementedError
