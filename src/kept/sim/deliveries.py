"""What was delivered to receivers, and what must have been (protocol A6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from kept.check.state import State
from kept.protocol.records import MessageKind, Promise, PromiseRecord, PromiseState
from kept.sim.ledger import Ledger
from kept.sim.mix import Mix

POLL_GROUP: Final = "sim"
# With one of these a message can be written to a stream whose other end is gone without anybody
# knowing: success is then reported, as A6 defines it, and the message is lost.
SILENT_LOSS: Final = frozenset({"stream_stall", "partition", "stall"})


def poll_address(machine: str) -> str:
    """The address of one receiver that listens."""
    return f"poll://uni@{POLL_GROUP}/{machine}"


def push_address(machine: str) -> str:
    """The address of one receiver that is pushed to."""
    return f"http://{machine}/hook"


class Deliveries:
    """Listeners that were registered, and the messages that came."""

    def __init__(self, mix: Mix, ledger: Ledger, state: Callable[[], State]) -> None:
        self._ledger = ledger
        self._state = state
        # Called for each unblock that comes.
        self.on_unblock: Callable[[str], None] | None = None
        self._lossy = bool(SILENT_LOSS & mix.faults.keys())
        self.executes = 0
        self.unblocks: Counter[tuple[str, str]] = Counter()
        # (promise, address), acknowledged while the promise was pending.
        self._registered: dict[tuple[str, str], None] = {}
        # What has left, as it was.
        self.departed: dict[str, Promise] = {}
        # Children that were acknowledged, by their parent.
        self._children: dict[str, dict[str, None]] = {}

    def child(self, parent: str, id: str) -> None:
        """A child was created or settled under its parent's lease."""
        self._children.setdefault(parent, {})[id] = None

    def children_of(self, parent: str) -> list[str]:
        """The children that are known now."""
        return list(self._children.get(parent, ()))

    def preloaded(self, parent: str, expected: list[str], preload: list[PromiseRecord]) -> None:
        """A lease came with its preload: all children that were known before are in it."""
        there = {record.id for record in preload}
        missing = [id for id in expected if id not in there]
        if missing:
            self._ledger.break_off("preloads are complete", f"{parent}: {missing} are not there")

    def registered(self, id: str, address: str) -> None:
        """A listener was registered on a promise that was pending."""
        self._registered[id, address] = None

    def executed(self, addresses: frozenset[str], id: str, version: int) -> None:
        """An execute came: never ahead of its task, and where its promise says."""
        self.executes += 1
        task, promise = self._state().tasks.get(id), self._state().promises.get(id)
        if promise is None and id in self.departed:
            # It was on its way while its task was done, and its tree left.
            return
        if task is None or promise is None:
            self._ledger.break_off("executes name tasks", f"{id} does not exist")
        elif version > task.version:
            why = f"{id} at version {version}, it is at {task.version}"
            self._ledger.break_off("executes are never ahead", why)
        elif promise.target not in addresses and not _is_any(promise.target, addresses):
            why = f"{id} is for {promise.target}, it came to {sorted(addresses)}"
            self._ledger.break_off("executes go where they are sent", why)

    def unblocked(self, addresses: frozenset[str], record: PromiseRecord) -> None:
        """An unblock came: it carries what was settled, and somebody asked for it."""
        stored = self._state().promises.get(record.id) or self.departed.get(record.id)
        if record.state is PromiseState.PENDING or stored is None or stored.record() != record:
            why = f"{record} was delivered, stored is {stored}"
            self._ledger.break_off("unblocks carry what is settled", why)
        elif self.on_unblock is not None and not any(
            self.unblocks[record.id, address] for address in addresses
        ):
            # Later ones may be repetitions, after a stream that ended too early to be sure.
            self.on_unblock(record.id)
        for address in sorted(addresses):
            self.unblocks[record.id, address] += 1

    def missing(self, reachable: frozenset[str]) -> str:
        """A delivery that is owed, in words; "" when there is none. Faults have stopped."""
        state = self._state()
        for (id, address), _ in self._registered.items():
            promise = state.promises.get(id) or self.departed.get(id)
            if promise is None or promise.pending or self.unblocks[id, address]:
                continue
            if not (self._lossy and address.startswith("poll:")):
                return f"{address} was not told of {id}"
        for key, entry in state.outbox.items():
            if entry.address in reachable and key.kind is MessageKind.UNBLOCK:
                return f"an unblock of {key.id} to {entry.address} is still in the outbox"
        return ""


def _is_any(target: str | None, addresses: frozenset[str]) -> bool:
    """Whether it prefers another member of the group, and takes this one where that is away."""
    listens = any(address.startswith("poll:") for address in addresses)
    return listens and (target or "").startswith(f"poll://any@{POLL_GROUP}/")
