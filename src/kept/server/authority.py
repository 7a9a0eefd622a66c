"""What a caller may do, and the ids that each request names (protocol A8, B7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from kept.errors import ForbiddenError
from kept.protocol import guard_requests as g
from kept.protocol import inquiries as i
from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import worker_requests as w
from kept.protocol.keys import named_keys

DEFAULT_TENANT: Final = "default"


class Authority(msgspec.Struct, frozen=True):
    """Who asks: an admin, or someone limited to ids that start with `prefix` (None: to no id)."""

    admin: bool
    prefix: str | None
    tenant: str = DEFAULT_TENANT

    @property
    def search_prefix(self) -> str | None:
        """What searches are limited to; None for everything."""
        return None if self.admin else self.prefix or None

    def require_prefix(self) -> None:
        """Raises `ForbiddenError` for a token that allows nothing at all."""
        if not self.admin and self.prefix is None:
            raise ForbiddenError("the token has neither the role admin nor a prefix")

    def require_admin(self, what: str) -> None:
        """Raises `ForbiddenError` for anyone but an admin."""
        if not self.admin:
            raise ForbiddenError(f"{what} needs the role admin")

    def require(self, request: r.Request) -> None:
        """Raises `ForbiddenError` where the request names an id outside of the prefix."""
        if self.admin:
            return
        self.require_prefix()
        ids = NAMED_IDS.get(type(request))
        if ids is None:
            raise ForbiddenError(f"{request.kind} needs the role admin")
        if self.prefix:
            for id in ids(request):
                self.require_id(id)

    def require_id(self, id: str) -> None:
        """Raises `ForbiddenError` where `id` is outside of the prefix."""
        if not self.admin and (self.prefix is None or not id.startswith(self.prefix)):
            raise ForbiddenError(f"{id[:64]!r} does not start with the token's prefix")


# Without authentication, everyone.
EVERYTHING: Final = Authority(admin=True, prefix="")


class Authenticator(Protocol):
    """Turns a token into an authority."""

    def authenticate(self, token: str | None) -> Authority:
        """Raises `UnauthenticatedError`."""


class NoAuthentication:
    """The authenticator of a server without authentication: whatever comes, everything goes."""

    def authenticate(self, token: str | None) -> Authority:
        return EVERYTHING


def _own(request: Any) -> Iterable[str]:
    return (request.id,)


def _resource(request: Any) -> Iterable[str]:
    return (request.resource,)


def _key(request: Any) -> Iterable[str]:
    return (request.key,)


def _own_and_released(request: Any) -> Iterable[str]:
    return (request.id, *request.released)


def _own_action_and_released(request: Any) -> Iterable[str]:
    return (request.id, request.action.data.id, *request.released)


def _of_suspend(request: r.TaskSuspend) -> Iterable[str]:
    yield from _own_and_released(request)
    for action in request.actions:
        yield action.data.awaited
        yield action.data.awaiter


def _of_schedule(request: r.ScheduleCreate | s.SchedulePut) -> Iterable[str]:
    """The fired promises' ids start with what the template says before its first variable, which
    in installed clients is the schedule's own id."""
    return (request.id, request.promise_id.replace("{{.id}}", request.id))


def _of_letters(request: r.DeadReplay | r.DeadPurge) -> Iterable[str]:
    """By filter: only of ids that begin with what the token allows. The operation's own id too."""
    yield from request.ids
    if request.filter is not None:
        yield request.filter.prefix or ""
        yield request.bulk or ""


def _create(request: r.PromiseCreate) -> Iterable[str]:
    """Keys too: who holds one is answered to whoever names it (B4)."""
    yield request.id
    yield from named_keys(request.tags).values()


def _task_create(request: r.TaskCreate) -> Iterable[str]:
    return _create(request.action.data)


def _of_fence(request: r.TaskFence) -> Iterable[str]:
    yield from _own_and_released(request)
    action = request.action
    if isinstance(action, r.CreateAction):
        yield from _create(action.data)
    else:
        yield action.data.id


def _queue(request: Any) -> Iterable[str]:
    return (request.name,)


def _none(request: Any) -> Iterable[str]:
    """Searches name no id; the engine limits them to the prefix."""
    return ()


# A kind that is not here is for admins only: the debug kinds, and whatever was forgotten.
NAMED_IDS: Final[dict[type[r.Request], Callable[[Any], Iterable[str]]]] = {
    r.PromiseGet: _own,
    r.PromiseCreate: _create,
    r.PromiseSettle: _own,
    r.PromiseRegisterCallback: lambda request: (request.awaited, request.awaiter),
    r.PromiseRegisterListener: lambda request: (request.awaited,),
    r.PromiseSearch: _none,
    r.PromiseWait: _own,
    r.PromiseChildren: _own,
    r.PromiseCancel: _own,
    r.TaskGet: _own,
    r.TaskCreate: _task_create,
    r.TaskAcquire: _own,
    r.TaskRelease: _own,
    r.TaskFulfill: _own_action_and_released,
    r.TaskSuspend: _of_suspend,
    r.TaskFence: _of_fence,
    r.TaskRecordStep: lambda request: (request.id, request.step.id, *request.released),
    r.TaskHeartbeat: lambda request: (task.id for task in request.tasks),
    r.TaskHalt: _own,
    r.TaskContinue: _own,
    r.TaskSearch: _none,
    r.TaskClaim: lambda request: request.queues,
    r.TaskNack: _own,
    r.QueuePut: _queue,
    r.QueueGet: _queue,
    r.QueueList: _none,
    r.QueueDelete: _queue,
    r.QueuePause: _queue,
    r.QueueResume: _queue,
    r.QueueStats: _queue,
    r.TaskAnnotate: _own,
    r.SignalSend: _own,
    r.ScheduleCreate: _of_schedule,
    r.ScheduleGet: _own,
    r.ScheduleDelete: _own,
    r.ScheduleSearch: _none,
    s.SchedulePut: _of_schedule,
    s.SchedulePause: _own,
    s.ScheduleResume: _own,
    s.ScheduleTrigger: _own,
    s.ScheduleBackfill: _own,
    r.DeadList: _none,
    r.DeadGet: _own,
    r.DeadReplay: _of_letters,
    r.DeadPurge: _of_letters,
    r.DeadBulk: _own,
    g.LockAcquire: _resource,
    g.LockHeartbeat: _resource,
    g.LockRelease: _resource,
    g.LockGet: _resource,
    g.LockSearch: _none,
    g.SlotAcquire: _key,
    g.SlotHeartbeat: _key,
    g.SlotRelease: _key,
    g.SlotGet: _key,
    g.BucketTake: _key,
    g.GuardAdvance: _key,
    g.GuardGet: _key,
    g.GuardSearch: _none,
    g.GuardDelete: _key,
    w.WorkerAnnounce: lambda request: (*request.queues, *(f.queue for f in request.functions)),
    w.WorkerList: _none,
    w.FunctionList: _none,
    w.FunctionGet: _none,
    i.TaskExplain: _own,
    i.PromiseDeliveries: _own,
}
