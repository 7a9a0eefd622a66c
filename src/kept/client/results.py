"""From the bytes of an answer to a typed `Response` (protocol A1, A4): kind and status say its type."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kept.protocol import guard_requests as g
from kept.protocol import inquiries as i
from kept.protocol import requests as r
from kept.protocol import responses as a
from kept.protocol import schedule_requests as s
from kept.protocol import worker_requests as w
from kept.protocol.codec import ReceivedResponse

RESULT_BY_KIND: Final[dict[str, type[a.Result]]] = {
    r.PromiseGet.kind: a.PromiseResult,
    r.PromiseCreate.kind: a.PromiseResult,
    r.PromiseSettle.kind: a.PromiseResult,
    r.PromiseRegisterCallback.kind: a.PromiseResult,
    r.PromiseRegisterListener.kind: a.PromiseResult,
    r.PromiseSearch.kind: a.PromisePage,
    r.PromiseWait.kind: a.PromiseResult,
    r.PromiseChildren.kind: a.PreloadResult,
    r.PromiseCancel.kind: a.CancelResult,
    r.TaskGet.kind: a.TaskResult,
    r.TaskCreate.kind: a.AcquiredTask,
    r.TaskAcquire.kind: a.AcquiredTask,
    r.TaskRelease.kind: a.Nothing,
    r.TaskFulfill.kind: a.PromiseResult,
    r.TaskSuspend.kind: a.Nothing,
    r.TaskFence.kind: a.FenceResult,
    r.TaskRecordStep.kind: a.PromiseResult,
    r.TaskHeartbeat.kind: a.HeartbeatResult,
    r.TaskHalt.kind: a.Nothing,
    r.TaskContinue.kind: a.Nothing,
    r.TaskSearch.kind: a.TaskPage,
    r.TaskClaim.kind: a.ClaimResult,
    r.TaskNack.kind: a.NackResult,
    r.QueuePut.kind: a.QueueResult,
    r.QueueGet.kind: a.QueueResult,
    r.QueueList.kind: a.QueuePage,
    r.QueueDelete.kind: a.Nothing,
    r.QueuePause.kind: a.QueueResult,
    r.QueueResume.kind: a.QueueResult,
    r.QueueStats.kind: a.QueueStatsResult,
    r.TaskAnnotate.kind: a.Nothing,
    r.SignalSend.kind: a.SignalResult,
    r.ScheduleCreate.kind: a.ScheduleResult,
    r.ScheduleGet.kind: a.ScheduleResult,
    r.ScheduleDelete.kind: a.Nothing,
    r.ScheduleSearch.kind: a.SchedulePage,
    s.SchedulePut.kind: a.ScheduleResult,
    s.SchedulePause.kind: a.ScheduleResult,
    s.ScheduleResume.kind: a.ScheduleResult,
    s.ScheduleTrigger.kind: a.PromiseResult,
    s.ScheduleBackfill.kind: a.ScheduleResult,
    r.DeadList.kind: a.DeadLetterPage,
    r.DeadGet.kind: a.DeadLetterResult,
    r.DeadReplay.kind: a.ReplayResult,
    r.DeadPurge.kind: a.PurgeResult,
    r.DeadBulk.kind: a.BulkResult,
    r.DebugStart.kind: a.Nothing,
    r.DebugStop.kind: a.Nothing,
    r.DebugReset.kind: a.Nothing,
    r.DebugSnap.kind: a.Snapshot,
    g.LockAcquire.kind: a.LockGrant,
    g.LockHeartbeat.kind: a.LeaseExtension,
    g.LockRelease.kind: a.Nothing,
    g.LockGet.kind: a.LockResult,
    g.LockSearch.kind: a.LockPage,
    g.SlotAcquire.kind: a.LeaseExtension,
    g.SlotHeartbeat.kind: a.LeaseExtension,
    g.SlotRelease.kind: a.Nothing,
    g.SlotGet.kind: a.SlotResult,
    g.BucketTake.kind: a.BucketResult,
    g.GuardAdvance.kind: a.GuardAdvanceResult,
    g.GuardGet.kind: a.GuardResult,
    g.GuardSearch.kind: a.GuardPage,
    g.GuardDelete.kind: a.Nothing,
    w.WorkerAnnounce.kind: a.Nothing,
    w.WorkerList.kind: a.WorkerPage,
    w.FunctionList.kind: a.FunctionPage,
    w.FunctionGet.kind: a.FunctionResult,
    i.TaskExplain.kind: i.Explanation,
    i.PromiseDeliveries.kind: i.DeliveriesResult,
}

_MAX_ERROR_CHARACTERS: Final = 2_000

_batch_decoder: Final = msgspec.json.Decoder(list[ReceivedResponse])
_single_decoder: Final = msgspec.json.Decoder(ReceivedResponse)
_text_decoder: Final = msgspec.json.Decoder(str)
_list_decoder: Final = msgspec.json.Decoder(list[Any])
_preload_decoder: Final = msgspec.json.Decoder(a.PreloadResult)
_result_decoders: Final = {
    kind: msgspec.json.Decoder(result) for kind, result in RESULT_BY_KIND.items()
}
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class UnintelligibleError(Exception):
    """An answer that is none of the protocol's: no engine spoke, or one of another version."""


def decode_single(body: bytes) -> ReceivedResponse:
    """The envelope of one answer; raises `UnintelligibleError`."""
    try:
        return _single_decoder.decode(body)
    except _UNDECODABLE as error:
        raise UnintelligibleError(str(error)) from None


def decode_batch(body: bytes) -> list[ReceivedResponse]:
    """The envelopes of a batch's answers, in order; raises `UnintelligibleError`."""
    try:
        return _batch_decoder.decode(body)
    except _UNDECODABLE as error:
        raise UnintelligibleError(str(error)) from None


def typed_response(kind: str, received: ReceivedResponse) -> a.Response:
    """The answer to a request of `kind` with its data typed; raises `UnintelligibleError`."""
    status = received.head.status
    if status >= a.BAD_REQUEST:
        detail = received.head.detail
        known = None if detail is msgspec.UNSET else detail
        return a.Response(status, _error_text(received.data), known)
    try:
        if kind == r.DebugTick.kind:
            return a.Response(status, _list_decoder.decode(received.data))
        if status == a.RESUME_AT_ONCE:
            return a.Response(status, _preload_decoder.decode(received.data))
        return a.Response(status, _result_decoders[kind].decode(received.data))
    except _UNDECODABLE as error:
        raise UnintelligibleError(f"the data of {kind}: {error}") from None


def _error_text(data: msgspec.Raw) -> str:
    try:
        return _text_decoder.decode(data)
    except _UNDECODABLE:
        # Other servers put structures there; the text is for people, so any form will do.
        return bytes(data)[:_MAX_ERROR_CHARACTERS].decode(errors="replace")
