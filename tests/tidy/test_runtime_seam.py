"""What is not deterministic passes through `kept.runtime`, so that a simulation can stand in."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from tests.tidy import exceptions
from tests.tidy.ratchet import complaints
from tests.tidy.sources import calls, gives_way, label, parsed, python_files, room, uses

# The clock, entropy, timers and threads: a name here covers everything below it.
NOT_DETERMINISTIC = {
    "asyncio.sleep",
    "asyncio.to_thread",
    "concurrent.futures.ProcessPoolExecutor",
    "concurrent.futures.ThreadPoolExecutor",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "os.getrandom",
    "os.urandom",
    "random",
    "secrets",
    "threading.Thread",
    "threading.Timer",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
    "time.sleep",
    "time.time",
    "time.time_ns",
    "uuid.uuid1",
    "uuid.uuid4",
}

# The loop that a method belongs to cannot be read from the code, its name can.
METHODS = {"run_in_executor"}

# A generator with a seed is deterministic, and what examines the others is driven by one.
SEEDED = {examiner: {"random.Random"} for examiner in ("check", "contract", "sim")}

# On the loop that durable code runs on, this is a durable timer; and what it draws from is seeded by its
# promise.
DURABLE = {
    "src/kept/sdk/context.py: asyncio.sleep",
    "src/kept/sdk/context.py: random.Random",
    "src/kept/sdk/durable_values.py: random.Random",
}


def _around_the_runtime(tree: ast.AST) -> Iterator[str]:
    giving_way = {call.func for name, call in calls(tree) if gives_way(name, call)}
    for name, expression in uses(tree):
        if expression in giving_way:
            continue
        parts = name.split(".")
        prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        if prefixes & NOT_DETERMINISTIC:
            yield name
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=method)) if method in METHODS:
                yield method


def test_nothing_goes_around_the_runtime() -> None:
    """Only kept/runtime.py, and what is listed, reads clocks, draws entropy, sleeps or starts threads."""
    found = Counter(
        use
        for path in python_files("src")
        if room(path) != "runtime"
        for name in _around_the_runtime(parsed(path))
        if name not in SEEDED.get(room(path), ())
        if (use := f"{label(path)}: {name}") not in DURABLE
    )
    assert not complaints(found, exceptions.AROUND_THE_RUNTIME)


def test_ways_around_the_runtime_are_found_under_any_name() -> None:
    """An alias hides nothing; a module that shares a last name, and a definition, are no use of it."""
    code = """
import asyncio
import random as chance
import time
from datetime import datetime
from uuid import uuid4, UUID
from kept.machine import time as instants

class Loop:
    def run_in_executor(self): ...

def work(loop):
    chance.randint(1, 6), time.time(), datetime.now(), uuid4(), loop.run_in_executor(None)
    asyncio.sleep(0.1), asyncio.sleep(0)
    UUID("0"), time.gmtime(0), instants.time(), datetime.fromtimestamp(0)
"""
    assert list(_around_the_runtime(ast.parse(code))) == [
        "random.randint",
        "time.time",
        "datetime.datetime.now",
        "uuid.uuid4",
        "asyncio.sleep",
        "run_in_executor",
    ]
