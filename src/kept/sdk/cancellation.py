"""Where a run stands with its cancellation: asked for, and given to the code or not yet (protocol B3).

A cancellation has its place among the results that reach the code: after all that settled before it
was asked for, and after what a former holder, who did not know of it, may have given to the code;
before whatever it canceled itself. So a replay of code that was not canceled before finds its
recorded results first, and the code never hears of a child's cancellation before its own.
"""

from __future__ import annotations

from kept.protocol.records import PromiseRecord, PromiseState
from kept.sdk.lease import Lease


class Cancellation:
    """`asked`: somebody wants the work to stop. `delivered`: the code heard it. `set_aside`: ids of
    canceled promises that the code waits for and that may be canceled because of that."""

    def __init__(self, lease: Lease) -> None:
        self.asked = False
        self.delivered = False
        self.set_aside: list[str] = []
        self._requested_at: int | None = None
        self._branches_are_left = False
        self.hear(lease)

    def hear(self, lease: Lease) -> None:
        """What was known when the lease was taken."""
        if lease.cancel_requested_at is not None:
            self.asked = True
            self._requested_at = lease.cancel_requested_at

    def ask(self) -> None:
        self.asked = True

    @property
    def waits(self) -> bool:
        """Whether the code is to hear of it when nothing comes before."""
        return self.asked and not self.delivered

    def sets_aside(self, record: PromiseRecord) -> bool:
        """Whether a settled promise has to wait for what comes of the cancellation."""
        if self.delivered or record.state is not PromiseState.REJECTED_CANCELED:
            return False
        settled_at = record.settled_at or 0
        if self._requested_at is not None and settled_at < self._requested_at:
            return False
        self.set_aside.append(record.id)
        return True

    def take_aside(self) -> list[str]:
        """What was set aside, which may reach the code now."""
        ids, self.set_aside = self.set_aside, []
        return ids

    def deliver(self) -> list[str]:
        """The code hears it now; what was set aside comes after it."""
        self.asked = self.delivered = self._branches_are_left = True
        return self.take_aside()

    def take_branches(self) -> bool:
        """Whether the branches of the code are to be canceled: once, when its root has ended."""
        left, self._branches_are_left = self._branches_are_left, False
        return left
