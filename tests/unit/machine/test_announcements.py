"""Who runs what, and jobs that nobody runs (protocol B9)."""

from __future__ import annotations

import pytest

from kept.machine.announcements import function_key, worker_key
from kept.machine.background import LookAtEntry
from kept.machine.step import MachineConfig
from kept.protocol import requests as r
from kept.protocol import worker_requests as w
from kept.protocol.entries import AnnouncedFunction, Announcement, FunctionSeen
from kept.protocol.limits import DEFAULT_UNREGISTERED_GRACE_MS, FUNCTION_RETENTION_MS
from kept.protocol.responses import NackResult
from tests.unit.machine.world import START_MS, World

GRACE = DEFAULT_UNREGISTERED_GRACE_MS
TTL = 10_000


def announce(world: World, *names: str, pid: str = "w", ttl: int = TTL) -> None:
    functions = [
        AnnouncedFunction(name, int(version or 1), "q")
        for name, _, version in (each.partition("@") for each in names)
    ]
    assert world.status(w.WorkerAnnounce(pid, ["q"], functions, ttl)) == 200


def nack(world: World, id: str = "j") -> str:
    """A worker gets the job and cannot run it."""
    version = world.task(id).version
    assert world.status(r.TaskAcquire(id, version, "old", 10**9)) == 200
    request = r.TaskNack(id, version + 1, 5_000, reason="unregistered", consume=False)
    return world.ok(request, NackResult).outcome


def until(world: World, pid: str = "w") -> int:
    data = world.dump.entries[worker_key(pid)].data
    assert isinstance(data, Announcement)
    return data.expires_at


def test_an_announcement_lasts_for_its_ttl_and_heartbeats_renew_it() -> None:
    """Of the same pid only, and not before half of it is over."""
    world = World()
    announce(world, "f")
    world.pass_time(TTL // 2 - 1)
    world.ask(r.TaskHeartbeat("w", []))
    assert until(world) == START_MS + TTL
    world.pass_time(1)
    world.ask(r.TaskHeartbeat("other", []))
    assert until(world) == START_MS + TTL
    world.ask(r.TaskHeartbeat("w", []))
    assert until(world) == world.now + TTL
    seen = world.dump.entries[function_key("f@1")].data
    assert isinstance(seen, FunctionSeen)
    assert seen.announced_until == world.now + TTL
    world.pass_time(TTL)
    world.ask(r.TaskHeartbeat("w", []))
    world.fire(LookAtEntry(worker_key("w")))
    assert worker_key("w") not in world.dump.entries


def test_announcing_again_replaces() -> None:
    """What is not named any more is not run here any more; a short ttl is leave."""
    world = World()
    announce(world, "f", "g")
    announce(world, "g")
    data = world.dump.entries[worker_key("w")].data
    assert isinstance(data, Announcement)
    assert [each.name for each in data.functions] == ["g"]
    assert world.status(w.WorkerAnnounce("w", [], [], 1)) == 200
    assert until(world) == world.now + 1


def test_a_job_that_nobody_announces_is_given_up_after_the_grace() -> None:
    """Not before, and then as a dead letter that says why; failures do not count."""
    world = World()
    world.create("j", queue="q", function="f@1")
    assert nack(world) == "retry"
    world.pass_time(GRACE - 1)
    assert nack(world) == "retry"
    world.pass_time(1)
    assert nack(world) == "rejected"
    letter = world.letter("j")
    assert (letter.reason, letter.failures, letter.function) == ("unregistered", 0, "f@1")


def test_exhausted_decides_how_it_is_given_up() -> None:
    """As for any other end of work that cannot succeed."""
    world = World(MachineConfig(unregistered_grace_ms=10))
    world.create("j", queue="q", function="f@1", exhausted="halt")
    nack(world)
    world.pass_time(10)
    assert nack(world) == "halted"


@pytest.mark.parametrize("function", ["f@1", "f"])
def test_an_announcement_starts_the_grace_anew(function: str) -> None:
    """Both by the bare name and with its version; it counts while it lasts."""
    world = World()
    world.create("j", queue="q", function=function)
    nack(world)
    world.pass_time(GRACE - 1)
    announce(world, "f@1")
    world.pass_time(TTL - 1)
    assert nack(world) == "retry"
    world.pass_time(1)
    assert nack(world) == "retry"
    world.pass_time(GRACE - 1)
    assert nack(world) == "retry"
    world.pass_time(1)
    assert nack(world) == "rejected"


def test_another_version_is_another_name() -> None:
    """Who runs f@1 cannot run f@2."""
    world = World()
    world.create("j", queue="q", function="f@2")
    announce(world, "f@1", ttl=10 * GRACE)
    nack(world)
    world.pass_time(GRACE)
    assert nack(world) == "rejected"


def test_the_grace_of_a_job_does_not_begin_before_it() -> None:
    """A name that is missing for long may be on its way with its first worker."""
    world = World()
    world.create("j", queue="q", function="f@1")
    nack(world)
    world.pass_time(GRACE)
    world.create("k", queue="q", function="f@1")
    assert nack(world, "k") == "retry"
    world.pass_time(GRACE)
    assert nack(world, "k") == "rejected"


def test_other_nacks_and_jobs_without_a_name_are_not_given_up() -> None:
    """Only the reason `unregistered`, not counted, of a job that names its function."""
    world = World(MachineConfig(unregistered_grace_ms=1))
    world.create("j", queue="q")
    world.create("k", queue="q", function="f@1")
    for _ in range(3):
        assert nack(world) == "retry"
        version = world.task("k").version
        world.status(r.TaskAcquire("k", version, "w", TTL))
        other = r.TaskNack("k", version + 1, 0, reason="busy", consume=False)
        assert world.ok(other, NackResult).outcome == "retry"
        world.pass_time(1_000)


def test_what_is_known_of_names_is_forgotten() -> None:
    """A day after nobody announces it any more."""
    world = World()
    announce(world, "f")
    world.pass_time(TTL + FUNCTION_RETENTION_MS)
    keys = list(world.dump.entries)
    world.fire(*(LookAtEntry(key) for key in keys))
    assert world.dump.entries == {}


@pytest.mark.parametrize(
    "functions",
    [
        [AnnouncedFunction("f@1", 1, "q")],
        [AnnouncedFunction("", 1, "q")],
        [AnnouncedFunction("f", -1, "q")],
        [AnnouncedFunction("f", 1, "")],
        [AnnouncedFunction("f", 1, "q"), AnnouncedFunction("f", 1, "r")],
        [AnnouncedFunction("f", 1, "q", {"x": "y" * 300_000})],
    ],
)
def test_what_cannot_be_announced_is_refused(functions: list[AnnouncedFunction]) -> None:
    """Names with a version in them, nothing, twice the same, too much."""
    assert World().status(w.WorkerAnnounce("w", ["q"], functions, TTL)) == 400
