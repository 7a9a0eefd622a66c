"""Plain functions as jobs: done, tried again, given up on, replayed."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from kept.sdk.app import App
from kept.sdk.functions import Function
from kept.sdk.retry import Constant, Exponential, Linear
from kept.sdk.verdicts import RejectJob, RetryJob
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

FLAKY_FAILURES: Final = 2
DOOMED_ATTEMPTS: Final = 3


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    boundary = steps.boundary

    async def job() -> str:
        await steps.take_time()
        return "done"

    def blocking_job(number: int) -> str:
        return "done"

    async def flaky_job() -> str:
        await steps.take_time()
        if steps.random.random() < 1 / FLAKY_FAILURES:
            raise ValueError("a flaky job fails")
        return "done"

    async def third_time_job(key: str) -> str:
        """Succeeds at the third try, wherever the others were."""
        await steps.take_time()
        if boundary.attempt(key) < DOOMED_ATTEMPTS:
            raise OSError("not yet")
        return "done"

    async def doomed_job(key: str) -> str:
        """Fails until somebody repairs what is wrong outside."""
        await steps.take_time()
        if not boundary.is_repaired(key):
            boundary.attempt(key)
            raise RuntimeError(f"{key} is broken")
        return "repaired"

    async def postponed_job(key: str) -> str:
        """Asks for another try, which is no failure: it is allowed none."""
        await steps.take_time()
        if boundary.attempt(key) < DOOMED_ATTEMPTS:
            raise RetryJob("not yet", delay=0.3)
        return "done"

    async def rejecting_job() -> str:
        await steps.take_time()
        raise RejectJob("not for me", reason="unwanted")

    async def number_job(number: int) -> int:
        return number

    def versioned_1(text: str) -> str:
        return f"one {text}"

    def versioned_2(text: str) -> str:
        return f"two {text}"

    app.function(name="versioned", version=1)(versioned_1)
    # Without end: leases that expire count as failures too.
    patient = Linear(attempts=None, step=0.3)
    return [
        app.function(job),
        app.function(blocking_job),
        app.function(name="flaky_job", retry=Constant(attempts=None, delay=0.5))(flaky_job),
        app.function(name="third_time_job", retry=patient)(third_time_job),
        app.function(
            name="doomed_job", retry=Exponential(attempts=DOOMED_ATTEMPTS, base=0.1, limit=0.3)
        )(doomed_job),
        app.function(postponed_job),
        app.function(name="rejecting_job", retry=patient)(rejecting_job),
        app.function(number_job),
        app.function(name="versioned", version=2)(versioned_2),
    ]


def _job(random: Random) -> Program:
    return Program("job", (), ("done",), hostile_id=random.random() < 0.5)


def _blocking(random: Random) -> Program:
    return Program("blocking_job", (random.randint(0, 99),), ("done",))


def _flaky(random: Random) -> Program:
    return Program("flaky_job", (), ("done",))


def _third_time(random: Random) -> Program:
    return Program("third_time_job", (f"third/{random.getrandbits(48):x}",), ("done",))


def _postponed(random: Random) -> Program:
    return Program("postponed_job", (f"postponed/{random.getrandbits(48):x}",), ("done",))


def _rejecting(random: Random) -> Program:
    return Program("rejecting_job", (), (), errors=("RejectJob",))


def _doomed(random: Random) -> Program:
    key = f"doomed/{random.getrandbits(48):x}"
    return Program("doomed_job", (key,), (), errors=("RuntimeError",), repair=key)


def _unfit(random: Random) -> Program:
    """Arguments that fit the signature and not the annotation."""
    return Program("number_job", ("no number",), (), errors=("InvalidArgumentsError",))


def _old_version(random: Random) -> Program:
    return Program("versioned", ("x",), ("one x",), by_name="versioned@1")


def _latest_version(random: Random) -> Program:
    by_name = random.choice((None, "versioned", "versioned@2"))
    return Program("versioned", ("x",), ("two x",), by_name=by_name)


CHOICES: Final[tuple[Drawn, ...]] = (
    _job, _blocking, _flaky, _third_time, _postponed, _rejecting, _doomed, _unfit, _old_version,
    _latest_version,
)  # fmt: skip
