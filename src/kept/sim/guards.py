"""Clients that contend for locks, slots, tokens and revisions, and what must be true of what they got.

The oracle knows nothing of the machine. It holds each answer against what was known when it was asked
for: a fence that was seen makes every later grant higher and every older holder powerless.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from kept.client.connection import Connection
from kept.errors import ConnectionFailedError
from kept.protocol import guard_requests as g
from kept.protocol.entries import EntryKey, EntryKind, Guard, Slots
from kept.protocol.requests import Request
from kept.protocol.responses import (
    CONFLICT,
    BucketResult,
    GuardAdvanceResult,
    LeaseExtension,
    LockGrant,
    LockResult,
    Response,
)
from kept.protocol.storage import Dump
from kept.sim.ledger import Ledger
from kept.sim.process import Process
from kept.sim.runtime import SimulatedRuntime

if TYPE_CHECKING:
    from kept.sim.world import World

# The kinds of which a run that is long enough must see each succeed.
GUARD_KINDS: Final = tuple(request.kind for request in g.GUARD_REQUESTS)
LOCKS: Final = ("door", "window")
SLOTS: Final = "api"
SLOT_LIMIT: Final = 2
BUCKET: Final = "calls"
BUCKET_LIMIT: Final = 2
BUCKET_PERIOD_MS: Final = 1_000
BUCKET_BURST: Final = 4
# More than there is, so that some are refused.
TAKES_IN_A_ROW: Final = 4
ENTITIES: Final = ("customer-1", "customer-2")
# Of this one nothing is claimed, because it is deleted now and then.
FORGOTTEN: Final = "customer-0"
CONTENDERS_PER_CLIENT: Final = 3
PAUSE_SECONDS: Final = 0.5
LEASE_MS: Final = (500, 1_500, 4_000)
WAIT_MS: Final = (0, 1_000, 10_000, 30_000)
# Longer than some leases, so that some lapse in the hands of their holders.
LONGEST_HOLD_SECONDS: Final = 1.5
# Who did not give a lock back asks for it anew, under the same name.
SHARE_OF_NAMESAKES: Final = 0.5
SHARE_OF_FORGETFUL: Final = 0.1
ASK_AGAIN_SECONDS: Final = 0.5
# Once faults have stopped, what is due is done within this.
OVERDUE_MS: Final = 60_000


class GuardOracle:
    """What contenders were told."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._owners: dict[tuple[str, int], str] = {}
        self._highest: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._asked_revisions: dict[str, int] = {}
        self._tokens = 0
        self._first_take_at: int | None = None

    # -- locks

    def fence(self, resource: str) -> int:
        """The highest fence that anybody was told."""
        return self._highest.get(resource, 0)

    def granted(self, resource: str, holder: str, fence: int, known: int) -> None:
        """A grant, asked for when `known` was the highest fence."""
        owner = self._owners.setdefault((resource, fence), holder)
        if owner != holder:
            self._break("a fence has one holder", f"{resource} {fence}: {owner} and {holder}")
        if fence <= known:
            self._break("fences rise", f"{resource}: {holder} got {fence} after {known}")
        self._highest[resource] = max(self.fence(resource), fence)

    def refused(self, key: str, response: Response, began: int) -> None:
        """An answer to a question that was asked at `began` on the store's clock, in ms."""
        expires_at = (response.detail or {}).get("expiresAt")
        if response.status == CONFLICT and isinstance(expires_at, int) and expires_at <= began:
            self._break("what has lapsed is free", f"{key}: held until {expires_at}, it is {began}")

    def lost(self, key: str, response: Response, expires_at: int, latest: int) -> None:
        """A heartbeat was not accepted by `latest`, and the lease was good until `expires_at` (ms)."""
        if response.status == CONFLICT and latest < expires_at:
            self._break("what is held stays held", f"{key}: lost by {latest}, good to {expires_at}")

    def lasts(self, key: str, ttl: int, expires_at: int, began: int, clock: int) -> None:
        """A new lease of `ttl` ms was asked for at `began` and granted by `clock`, in ms."""
        if not began + ttl <= expires_at <= clock + ttl:
            why = f"{key}: {ttl} ms until {expires_at}, granted between {began} and {clock}"
            self._break("leases are as long as asked", why)

    def confirmed(self, resource: str, holder: str, fence: int, known: int) -> None:
        """A heartbeat or release under a fence succeeded, asked when `known` was the highest."""
        if fence < known:
            why = f"{resource}: {holder} acts under {fence}, after {known}"
            self._break("stale lock holders are refused", why)

    # -- slots, buckets, revisions

    def slots(self, slots: Slots | None) -> None:
        """The slots as the store has them."""
        if slots is not None and len({lease.holder for lease in slots.leases}) > SLOT_LIMIT:
            self._break("slots keep their limit", str(slots))

    def took(self, tokens: int, began: int, clock: int) -> None:
        """Tokens were granted; `clock` is the store's, in ms, `began` what it was before."""
        # An earlier take may be answered later.
        first = began if self._first_take_at is None else self._first_take_at
        self._first_take_at = min(first, began)
        self._tokens += tokens
        gained = (clock - self._first_take_at) * BUCKET_LIMIT
        if (self._tokens - BUCKET_BURST) * BUCKET_PERIOD_MS > gained:
            why = f"{self._tokens} tokens in {clock - self._first_take_at} ms"
            self._break("buckets keep their rate", why)

    def revision(self, entity: str) -> int:
        """The highest revision that was acknowledged."""
        return self._revisions.get(entity, -1)

    def sends(self, entity: str, revision: int) -> None:
        self._asked_revisions[entity] = max(self._asked_revisions.get(entity, -1), revision)

    def advanced(self, entity: str, revision: int, known: int) -> None:
        """An advance was acknowledged, asked for when `known` was the highest."""
        if revision < known:
            self._break("late events are refused", f"{entity}: {revision} after {known}")
        self._revisions[entity] = max(self.revision(entity), revision)

    def compare(self, dump: Dump) -> None:
        """What was acknowledged is in the store, and nothing that nobody asked for."""
        for entity in ENTITIES:
            entry = dump.entries.get(EntryKey(EntryKind.GUARD, entity))
            stored = entry.data.revision if entry and isinstance(entry.data, Guard) else -1
            if not self.revision(entity) <= stored <= self._asked_revisions.get(entity, -1):
                why = f"{entity}: {self.revision(entity)} was acknowledged, {stored} is stored"
                self._break("revisions end at the highest", why)
        entry = dump.entries.get(EntryKey(EntryKind.SLOTS, SLOTS))
        self.slots(entry.data if entry and isinstance(entry.data, Slots) else None)

    def _break(self, oracle: str, why: str) -> None:
        self._ledger.break_off(oracle, why)


class Contender:
    """One of those who contend in a client's process."""

    def __init__(
        self,
        world: World,
        process: Process,
        runtime: SimulatedRuntime,
        connection: Connection,
        number: int,
    ) -> None:
        self._world = world
        self._oracle = world.guards
        self._process = process
        self._runtime = runtime
        self._connection = connection
        self._random: Random = world.random(f"guards {process} {number}")
        self._own_name = f"{process.name}-{process.incarnation}-{number}"
        self._number = 0
        # Of each lock that was not given back: under which name and fence.
        self._left: dict[str, tuple[str, int]] = {}
        # Under which names it has asked.
        self._asked: set[str] = set()
        self._actions = (
            *[self._lock] * 8,
            *[self._slot] * 5,
            *[self._bucket] * 4,
            *[self._revision] * 4,
            *[self._look_around] * 2,
        )

    async def run(self) -> None:
        """Contends while the world is busy; then has each lock once more, as everybody must be able
        to, since nobody holds one for long."""
        while self._world.busy:
            await self._runtime.sleep(
                self._random.expovariate(1 / (PAUSE_SECONDS * self._world.pace))
            )
            action = self._random.choice(self._actions)
            try:
                await action()
            except ConnectionFailedError:
                self._world.trace.note("failed", self._process.name, action.__name__)
        for resource in LOCKS:
            await self._have_at_last(resource)

    async def _lock(self) -> None:
        resource = self._random.choice(LOCKS)
        left, fence = self._left.pop(resource, ("", 0))
        holder = left if left and self._random.random() < SHARE_OF_NAMESAKES else self._name()
        known = self._oracle.fence(resource)
        request = g.LockAcquire(
            resource, holder, self._random.choice(LEASE_MS), self._random.choice(WAIT_MS)
        )
        grant = (await self._waiting(request, resource)).data
        if not isinstance(grant, LockGrant):
            return
        is_held_still = holder == left and grant.fence == fence
        if not is_held_still:
            self._oracle.granted(resource, holder, grant.fence, known)
        if holder == left and not is_held_still:
            # Its own name does not make good a fence that is over.
            act = self._random.choice((g.LockHeartbeat, g.LockRelease))
            await self._act(act(resource, holder, fence), fence)
        expires_at = grant.expires_at
        for _ in range(self._random.randrange(3)):
            await self._hold()
            beat = g.LockHeartbeat(resource, holder, grant.fence)
            expires_at = self._extended(resource, await self._act(beat, grant.fence), expires_at)
        if self._random.random() >= SHARE_OF_FORGETFUL:
            await self._act(g.LockRelease(resource, holder, grant.fence), grant.fence)
        else:
            self._left[resource] = holder, grant.fence

    async def _act(self, request: g.LockHeartbeat | g.LockRelease, fence: int) -> Response:
        known = self._oracle.fence(request.resource)
        response = await self._connection.send(request)
        if response.ok:
            self._oracle.confirmed(request.resource, request.holder, fence, known)
        return response

    def _extended(self, key: str, response: Response, expires_at: int) -> int:
        """Until when a lease holds after the answer to a heartbeat; it held until `expires_at`."""
        if isinstance(response.data, LeaseExtension):
            return response.data.expires_at
        # A refusal commits nothing, so only the machines' clocks tell when it was at the latest.
        _, latest = self._world.server_clock.bounds()
        self._oracle.lost(key, response, expires_at, latest)
        return expires_at

    async def _slot(self) -> None:
        holder = self._name()
        request = g.SlotAcquire(
            SLOTS, SLOT_LIMIT, holder, self._random.choice(LEASE_MS), self._random.choice(WAIT_MS)
        )
        grant = (await self._waiting(request, SLOTS)).data
        if not isinstance(grant, LeaseExtension):
            return
        entry = self._world.monitor.state().entries.get(EntryKey(EntryKind.SLOTS, SLOTS))
        self._oracle.slots(entry.data if entry and isinstance(entry.data, Slots) else None)
        await self._hold()
        beat = await self._connection.send(g.SlotHeartbeat(SLOTS, holder))
        self._extended(SLOTS, beat, grant.expires_at)
        await self._hold()
        if self._random.random() >= SHARE_OF_FORGETFUL:
            await self._connection.send(g.SlotRelease(SLOTS, holder))

    async def _bucket(self) -> None:
        for _ in range(TAKES_IN_A_ROW):
            cost = self._random.randint(1, BUCKET_BURST)
            began = self._world.disk.medium.clock
            request = g.BucketTake(BUCKET, BUCKET_LIMIT, BUCKET_PERIOD_MS, cost, BUCKET_BURST)
            result = (await self._connection.send(request)).data
            if isinstance(result, BucketResult) and result.granted:
                self._oracle.took(cost, began, self._world.disk.medium.clock)

    async def _revision(self) -> None:
        """Mostly the next one; sometimes a late or a repeated one."""
        entity = self._random.choice(ENTITIES)
        known = self._oracle.revision(entity)
        revision = max(0, known + self._random.choice((-1, 0, 1, 1, 2)))
        self._oracle.sends(entity, revision)
        response = await self._connection.send(g.GuardAdvance(entity, revision))
        if isinstance(response.data, GuardAdvanceResult):
            self._oracle.advanced(entity, revision, known)

    async def _look_around(self) -> None:
        """What operators ask."""
        resource = self._random.choice(LOCKS)
        requests: tuple[Request, ...] = (
            g.LockSearch(limit=1),
            g.LockGet(resource),
            g.SlotGet(SLOTS),
            g.GuardSearch("customer-"),
            g.GuardAdvance(FORGOTTEN, self._random.randrange(9), retention=5_000),
            g.GuardGet(FORGOTTEN),
            g.GuardDelete(FORGOTTEN),
        )
        for request in requests:
            known = self._oracle.fence(resource)
            found = (await self._connection.send(request)).data
            if isinstance(found, LockResult) and found.lock.fence < known:
                why = f"{resource} has fence {found.lock.fence} after {known}"
                self._world.ledger.break_off("fences rise", why)

    async def _have_at_last(self, resource: str) -> None:
        holder = self._name()
        while True:
            known = self._oracle.fence(resource)
            try:
                request = g.LockAcquire(resource, holder, max(LEASE_MS), max(WAIT_MS), keep=True)
                grant = (await self._waiting(request, resource)).data
                if isinstance(grant, LockGrant):
                    self._oracle.granted(resource, holder, grant.fence, known)
                    await self._act(g.LockRelease(resource, holder, grant.fence), grant.fence)
                    return
            except ConnectionFailedError:
                pass
            await self._runtime.sleep(ASK_AGAIN_SECONDS)

    async def _waiting(self, request: g.LockAcquire | g.SlotAcquire, key: str) -> Response:
        """Asks a request for whose answer nobody may wait for ever."""
        began = self._world.disk.medium.clock
        self._world.begin_waiting(self._process, f"guard {key}")
        try:
            response = await self._connection.send(request)
        finally:
            self._world.end_waiting(self._process, f"guard {key}", "guard answer")
        self._oracle.refused(key, response, began)
        is_new = request.holder not in self._asked
        self._asked.add(request.holder)
        if isinstance(response.data, LockGrant | LeaseExtension) and is_new:
            clock = self._world.disk.medium.clock
            self._oracle.lasts(key, request.ttl, response.data.expires_at, began, clock)
        return response

    async def _hold(self) -> None:
        await self._runtime.sleep(self._random.uniform(0, LONGEST_HOLD_SECONDS))

    def _name(self) -> str:
        self._number += 1
        return f"{self._own_name}-{self._number}"


def contend(
    world: World, process: Process, runtime: SimulatedRuntime, connection: Connection
) -> None:
    """Begins a client's part in it."""
    for number in range(1, CONTENDERS_PER_CLIENT + 1):
        contender = Contender(world, process, runtime, connection, number)
        runtime.spawn(contender.run(), f"guards-{number}")


def overdue_entry(world: World) -> str:
    """An entry at which the background should have looked long ago, in words."""
    limit = world.disk.medium.clock - OVERDUE_MS
    for entry in world.monitor.state().entries.values():
        if entry.due_at is not None and entry.due_at <= limit:
            return f"{entry} is overdue"
    return ""
