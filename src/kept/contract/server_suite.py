"""The conformance cases against any server of the base protocol, by its URL.

    python -m kept.contract.server_suite http://127.0.0.1:8420

The server must run with `--debug` and is emptied before each case; those cases that need a server
without it are left out unless `--without-debug` says that this is one. Exit status 1: a case failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import aiohttp

from kept.contract.conformance_cases import CASES, START_MS, Absent, Ask, Case
from kept.protocol.limits import PROTOCOL_VERSION

JsonObject = dict[str, Any]

REQUEST_TIMEOUT_SECONDS: Final = 30

# Sends one envelope; answers with the HTTP status and the body.
Send = Callable[[JsonObject], Awaitable[tuple[int, JsonObject]]]


async def run_case(send: Send, case: Case) -> list[str]:
    """What a server gets wrong in one case; nothing where it is right."""
    if case.debug:
        for kind in ("debug.start", "debug.reset"):
            status, _ = await send(_envelope(Ask(0, kind, {})))
            if status != 200:
                return [f"{kind} answered {status}: is the server running with --debug?"]
    for number, step in enumerate(case.steps, start=1):
        status, body = await send(_envelope(step))
        problems = list(_problems(step, status, body))
        if problems:
            place = f"{case.name} ({case.property}), step {number} {step.kind} {step.data}"
            return [f"{place}: {problem}" for problem in problems]
    return []


def _envelope(step: Ask) -> JsonObject:
    head = {
        "corrId": "conformance",
        "version": PROTOCOL_VERSION,
        "resonate:debug_time": START_MS + step.at,
    }
    return {"kind": step.kind, "head": head, "data": step.data}


def _problems(step: Ask, status: int, body: JsonObject) -> Iterator[str]:
    head = body.get("head")
    if not isinstance(head, dict) or head.get("status") != status:
        yield f"the HTTP status is {status} and the head {head}"
    if body.get("kind") != step.kind:
        yield f"the kind is {body.get('kind')}"
    data = body.get("data")
    if status != step.status:
        yield f"expected {step.status}, got {status}: {data}"
    elif status >= 400 and not isinstance(data, str):
        yield f"the data of an error is {data}"
    elif status < 400 and step.expect is not None:
        yield from _mismatches(step.expect, data, "data")


def _mismatches(expected: Any, actual: Any, place: str) -> Iterator[str]:
    """Objects may hold more than is expected, lists may not."""
    if isinstance(expected, Absent):
        yield f"{place}: expected nothing, got {actual}"
    elif isinstance(expected, dict) and isinstance(actual, dict):
        for name, item in expected.items():
            if name in actual:
                yield from _mismatches(item, actual[name], f"{place}.{name}")
            elif not isinstance(item, Absent):
                yield f"{place}.{name}: expected {item}, got nothing"
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"{place}: expected {expected}, got {actual}"
        for number, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from _mismatches(one, other, f"{place}[{number}]")
    elif expected != actual:
        yield f"{place}: expected {expected}, got {actual}"


async def run(url: str, *, debug: bool = True) -> list[str]:
    """All problems of the server at `url`; `debug` chooses the cases by what it runs with."""
    problems: list[str] = []
    timeout = aiohttp.ClientTimeout(REQUEST_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def send(envelope: JsonObject) -> tuple[int, JsonObject]:
            async with session.post(url, json=envelope) as response:
                return response.status, await response.json()

        for case in CASES:
            if case.debug == debug:
                problems += await run_case(send, case)
    return problems


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m kept.contract.server_suite")
    parser.add_argument("url")
    parser.add_argument("--without-debug", action="store_true")
    options = parser.parse_args(arguments)
    problems = asyncio.run(run(options.url, debug=not options.without_debug))
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"{len(problems)} problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
