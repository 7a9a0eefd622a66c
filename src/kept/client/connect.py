"""From a URL to a connection: over HTTP, or to an engine of one's own in this process."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from kept.client.connection import Connection
from kept.client.retry import RetryPolicy
from kept.errors import ConfigurationError
from kept.runtime import Runtime

HTTP_SCHEMES: Final = frozenset({"http", "https"})
STORE_SCHEMES: Final = frozenset({"memory", "sqlite", "postgresql", "postgres"})


async def connect(
    url: str, runtime: Runtime, token: str | None = None, *, retry: RetryPolicy | None = None
) -> Connection:
    """A connection to the engine at `url`.

    `http://…` and `https://…` name a server, and `token` is sent to it. `memory://` and
    `sqlite:///file` name a store: an engine over it starts in this process and stops when the
    connection is closed. `retry` says how patiently to ask again. Raises `ConfigurationError` for
    any other URL, and `StoreError` where the store cannot be opened.
    """
    scheme = urlsplit(url).scheme
    if scheme in HTTP_SCHEMES:
        if not urlsplit(url).hostname:
            raise ConfigurationError(f"{url!r} names no host; write http://HOST:PORT")
        from kept.client.http import HttpConnection

        return HttpConnection(url, runtime, token, retry=retry)
    if scheme in STORE_SCHEMES:
        return await _embedded(url, runtime, retry)
    raise ConfigurationError(
        f"{url!r} is not a URL that kept can connect to; "
        "use http://HOST:PORT, sqlite:///FILE or memory://"
    )


async def _embedded(url: str, runtime: Runtime, retry: RetryPolicy | None) -> Connection:
    # Here, because a program that only speaks HTTP does not load the engine and its stores.
    from kept.client.local import LocalConnection
    from kept.engine.config import EngineConfig
    from kept.engine.engine import Engine
    from kept.stores.open import open_store
    from kept.transports.http import HttpPushTransport
    from kept.transports.webhooks import webhook_options

    # Whoever has the file open sends what is to be sent, so all are told in the same way.
    push = HttpPushTransport(runtime, webhook_options(os.environ))
    store = open_store(url, runtime)
    engine = Engine(store, runtime, EngineConfig(), transports=(push,))
    try:
        await engine.start()
    except BaseException:
        await store.close()
        raise
    return LocalConnection(engine, runtime, owns=True, retry=retry)
