"""What a history tells of cancellations that nobody saw happen (protocol B3).

A cancellation spreads in the background, and ends what did not stop by itself, at instants of its
own. Where an answer shows such an instant, as when a promise was settled or since when its work is
asked to stop, the history gets a part for it, a witness: at that instant it is so, by whatever
means. A witness has to come before whoever told of it has returned. What nobody was shown may have
happened at any time, and is tried where a part could notice it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import msgspec

from kept.check.history import Answer
from kept.check.model.cancellation import (
    CANCELED,
    GRACE_MS,
    Cancel,
    end_grace,
    is_over,
    reach,
    reaches,
)
from kept.check.model.state import State
from kept.check.protocol_names import cancels_in, promises_in, tags_of
from kept.check.protocol_parts import asks_in
from kept.check.sequential import FOREVER, JsonObject, Part
from kept.check.snapshots import Snapshot, Workspace

WAS_CANCELED: Final = "promise.cancel by then"
WAS_ASKED: Final = "promise.cancel asked by then"
WITNESSES: Final = frozenset({WAS_CANCELED, WAS_ASKED})

BackgroundStep = Callable[[State], None]


class Cancellations:
    """The promises of a history that cancellations may reach, and what was shown of them."""

    def __init__(self, parts: Sequence[Part] = ()) -> None:
        self._parents: dict[str, str] = {}
        self._targets: dict[str, bool] = {}
        # By id: the part that told first, and what it told.
        self._settled: dict[str, tuple[Part, str, int]] = {}
        self._asked: dict[str, tuple[Part, int]] = {}
        self._first_cancel: Part | None = None
        self._first_named: dict[str, Part] = {}
        for part in parts:
            for data in cancels_in(part.kind, part.data):
                id = str(data.get("id", ""))
                self._targets[id] = data.get("recursive") is not False or self._targets.get(
                    id, False
                )
                self._first_cancel = self._first_cancel or part
        if self._targets:
            for part in parts:
                self._note(part)

    def _note(self, part: Part) -> None:
        for key in part.keys:
            self._first_named.setdefault(key, part)
        for record in _creates(part.data):
            self._note_parent(record)
        answer = part.answer.data if part.answer is not None else None
        if not isinstance(answer, dict):
            return
        for record in promises_in(answer):
            self._note_parent(record)
            id, at = str(record.get("id", "")), record.get("settledAt")
            if isinstance(at, int) and _is_sooner(part, self._settled.get(id)):
                self._settled[id] = (part, str(record.get("state", "")), at)
        for id, at in asks_in(answer):
            if _is_sooner(part, self._asked.get(id)):
                self._asked[id] = (part, at)

    def _note_parent(self, record: JsonObject) -> None:
        parent = tags_of(record).get("resonate:parent")
        if isinstance(parent, str):
            self._parents[str(record.get("id", ""))] = parent

    def _is_within_reach(self, id: str) -> bool:
        """Whether a cancellation that anybody asked for may come here."""
        passed: set[str] = set()
        is_within = id in self._targets
        while not is_within and id in self._parents and id not in passed:
            passed.add(id)
            id = self._parents[id]
            is_within = self._targets.get(id, False)
        return is_within

    # -- witnesses -----------------------------------------------------------------------------------

    def witnesses(self) -> Iterator[Part]:
        """A part for each instant that was shown."""
        for id, (part, state, at) in self._settled.items():
            if state == CANCELED and self._is_within_reach(id):
                yield self._witness(WAS_CANCELED, id, at, part)
        for id, (part, at) in self._asked.items():
            # Who asked for it needs nobody else to say so.
            if part.kind != "promise.cancel" or at < part.earliest:
                yield self._witness(WAS_ASKED, id, at, part)

    def _witness(self, kind: str, id: str, at: int, told_by: Part) -> Part:
        # It was there, or some cancellation was on its way, no later than this was asked.
        known = (self._first_named.get(id), self._first_cancel)
        first = min((each for each in known if each is not None), key=_invoked)
        asked = told_by.operation
        return Part(
            index=told_by.index,
            operation=msgspec.structs.replace(asked, invoked=first.operation.invoked),
            kind=kind,
            data={"id": id, "at": at},
            answer=Answer(200),
            keys=tuple(dict.fromkeys((id, self._parents.get(id, id)))),
            earliest=first.earliest,
            latest=at,
            instants=(at,),
            is_witness=True,
        )

    def witnessed(self, before: Snapshot, part: Part) -> Iterator[Snapshot]:
        """The states in which it is as it was told, by what the background may do at that instant."""
        at, id = part.data["at"], part.data["id"]
        if id not in before.promises:
            return
        if _is_so(before, part):
            yield before.at(at)
            return
        for step, _ in self._moves(before, id, at):
            workspace = Workspace(before)
            step(workspace.state, now=at)
            after = workspace.snapshot(at)
            if _is_so(after, part):
                yield after

    @staticmethod
    def _moves(state: Snapshot, id: str, now: int) -> Iterator[tuple[Callable[..., None], int]]:
        """What the background may do to a promise by now, and since when at the earliest."""
        promise = state.promises[id]
        if is_over(promise, now):
            yield partial(end_grace, id=id), promise["cancel"].ends_at
        if reaches(state.promises, id, now):
            parent = state.promises[promise["tags"]["resonate:parent"]]
            asked: Cancel = parent["cancel"]
            since = parent["settledAt"] if asked.forced else asked.requested_at
            yield partial(reach, id=id), max(since, promise["createdAt"])

    # -- what nobody was shown -----------------------------------------------------------------------

    def due(
        self, state: Snapshot, part: Part, noticed: set[str], time: int
    ) -> Iterator[BackgroundStep]:
        """Steps that may have been taken by `time`, that the part could notice, and of which no
        instant was shown."""
        if not state.spreads:
            return
        for id, is_asking in self._open(state, part, noticed).items():
            for step, at in self._moves(state, id, time):
                # Earlier is never worse.
                workspace = Workspace(state)
                step(workspace.state, now=at)
                if workspace.state.promises[id]["state"] != "pending":
                    is_wanted = id not in self._settled
                elif state.promises[id]["cancel"] is None:
                    is_over_soon = at + GRACE_MS <= time
                    is_wanted = id not in self._asked and (is_asking or is_over_soon)
                else:
                    is_wanted = True
                if is_wanted:
                    yield partial(step, now=at)

    def _open(self, state: Snapshot, part: Part, noticed: set[str]) -> dict[str, bool]:
        """The promises that may be canceled by steps that nobody was shown, so that the part could
        notice, those first from which others come; and of each, whether it matters that its work is
        asked to stop, and not only its end."""
        found: dict[str, bool] = {}
        for id in sorted(noticed & state.promises.keys()):
            is_asking = id in part.keys and id not in self._asked
            if not is_asking and id in self._settled:
                continue
            found[id] = found.get(id, False) or is_asking
            above = _parent_of(state, id)
            while above in state.promises and not found.get(above):
                found[above] = True
                above = _parent_of(state, above)
        return dict(reversed(found.items()))


def _creates(data: JsonObject) -> Iterator[JsonObject]:
    yield data
    inner = data.get("action")
    for each in (data.get("step"), inner.get("data") if isinstance(inner, dict) else None):
        if isinstance(each, dict):
            yield each


def _is_sooner(part: Part, known: tuple[Part, object] | tuple[Part, str, int] | None) -> bool:
    return known is None or _returned(part) < _returned(known[0])


def _returned(part: Part) -> int:
    return FOREVER if part.operation.returned is None else part.operation.returned


def _invoked(part: Part) -> int:
    return part.operation.invoked


def _is_so(state: Snapshot, part: Part) -> bool:
    promise = state.promises[part.data["id"]]
    if part.kind == WAS_CANCELED:
        return bool(promise["state"] == CANCELED and promise["settledAt"] == part.data["at"])
    asked: Cancel | None = promise["cancel"]
    return asked is not None and asked.requested_at == part.data["at"]


def _parent_of(state: Snapshot, id: str) -> str:
    return str(state.promises[id]["tags"].get("resonate:parent", id))
