"""A trace in words: one move a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kept.sim.explorer.moves import Move

_SENTENCES: Final[dict[str, str]] = {
    "create": "the client creates {id}",
    "settle": "the client resolves {id}",
    "listen": "the client listens to {id}",
    "halt": "an operator halts {id}",
    "continue": "an operator lets {id} go on",
    "cancel": "the client asks {id} to stop",
    "cancel further": "the engine goes on with the cancellation of {id}",
    "limit": "an operator limits the queue",
    "timeout": "the deadline of {id} is stored",
    "expire": "the lease on {id} expires",
    "dispatch": "the engine offers {id} to its target",
    "ready": "{id} becomes ready in its queue",
    "early": "the engine takes a step too early",
    "unblock": "the listener is told of {id}",
    "deliver": "{worker} receives the message for {id}",
    "deliver twice": "{worker} receives the message for {id}, which will be sent again",
    "lose": "the message for {id} is lost on its way",
    "crash": "{worker} crashes",
    "start": "{worker} creates {id} and holds it",
    "claim": "{worker} claims {id}",
    "acquire": "{worker} acquires {id}",
    "record": "{worker} records a step of {id}",
    "call": "{worker} creates a child of {id}",
    "suspend": "{worker} suspends {id}",
    "fulfil": "{worker} fulfils {id}",
    "end canceled": "{worker} ends {id} as canceled",
    "nack": "{worker} fails {id}",
    "release": "{worker} hands {id} back",
    "heartbeat": "{worker} sends a heartbeat for {id}",
}


def told(moves: Iterable[Move]) -> tuple[str, ...]:
    """The moves in words, in order, with the instants (in ticks' milliseconds) at which they happen."""
    lines = []
    elapsed_ms = 0
    for move in moves:
        if move.name == "tick":
            elapsed_ms += int(move.outcome or 0)
            lines.append(f"time passes: {elapsed_ms} ms")
        else:
            lines.append(_sentence(move))
    return tuple(lines)


def _sentence(move: Move) -> str:
    worker = f"w{move.worker}"
    if move.name == "hang":
        what = f"{move.outcome} {move.id}".strip()
        return f"{worker}'s request hangs in the network: {what}"
    name, how = move.name, ""
    if name.startswith("late "):
        name, how = name.removeprefix("late "), ", by the request that hung"
    if name.startswith("stale "):
        name, worker = name.removeprefix("stale "), f"{worker}, whose lease is lost,"
    if name.startswith("repeated "):
        name, how = name.removeprefix("repeated "), ", asking again"
    text = _SENTENCES[name].format(id=move.id or "a task", worker=worker)
    answer = f": {move.outcome}" if move.outcome else ""
    return f"{text}{how}{answer}"
