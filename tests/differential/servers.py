"""An engine in this process as something that answers envelopes, through the real codec."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kept.check.comparison import Script, Send
from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.protocol import codec
from kept.protocol.responses import Response
from kept.protocol.storage import StepObserver
from kept.runtime import SystemRuntime
from kept.stores.base import Store

JsonObject = dict[str, Any]


def send_to(engine: Engine) -> Send:
    """One envelope is submitted alone, several as one batch."""

    async def send(script: Script) -> list[tuple[int, JsonObject]]:
        bodies = [json.dumps(envelope).encode() for envelope in script]
        answers: list[tuple[int, JsonObject] | None] = []
        admitted = []
        for body in bodies:
            try:
                envelope = codec.decode_envelope(body)
                admitted.append((codec.decode_data(envelope), envelope))
                answers.append(None)
            except codec.Malformed as error:
                answers.append((400, json.loads(codec.encode_malformed(error))))
        pairs = [(request, envelope.head) for request, envelope in admitted]
        if len(pairs) == 1:
            responses = [await engine.submit(*pairs[0])]
        else:
            responses = await engine.submit_batch(pairs) if pairs else []
        replies = iter(
            encoded(envelope, response)
            for (_, envelope), response in zip(admitted, responses, strict=True)
        )
        return [next(replies) if answer is None else answer for answer in answers]

    return send


def encoded(envelope: codec.Envelope, response: Response) -> tuple[int, JsonObject]:
    body = codec.encode_response(envelope.kind, envelope.head.corr_id, response)
    return response.status, json.loads(body)


@asynccontextmanager
async def running_engine(
    store: Store, *, debug: bool = True, observer: StepObserver | None = None
) -> AsyncIterator[Engine]:
    """An engine over `store`, stopped at the end; `debug` allows debug requests."""
    config = EngineConfig(debug=debug)
    engine = Engine(store, SystemRuntime(), config, observer=observer)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
