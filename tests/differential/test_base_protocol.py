"""The engine answers as the model does: the same random requests to both, on every store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kept.check.differential import Driver, Outcome
from kept.check.monitor import Monitor
from kept.contract.conformance_cases import CASES, Case
from kept.contract.server_suite import run_case
from kept.runtime import SystemRuntime
from kept.stores.base import Store
from kept.stores.open import open_store
from tests.differential.servers import running_engine, send_to

# Less than what the generator asks before its first reset, of which a monitor is not told.
REQUESTS = 1_400
# Some ticks, few ticks, batches, and batches with few ticks; each with its seed.
MODES: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {}),
    (2, {"sparse": True}),
    (3, {"batch": 16}),
    (4, {"sparse": True, "batch": 40}),
)


@pytest.fixture(params=["memory", "sqlite"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    files = iter(range(100))

    def new() -> Store:
        url = f"sqlite:///{tmp_path}/{next(files)}.db"
        return open_store("memory://" if request.param == "memory" else url, SystemRuntime())

    return new


@pytest.mark.timeout(300)
async def test_the_engine_answers_as_the_model_does(new_store: Callable[[], Store]) -> None:
    """Random requests get the model's answers and leave its records, while every named property
    holds after every step; and every (kind, status) pair that the model knows occurs."""
    seen: Counter[tuple[str, int]] = Counter()
    for seed, mode in MODES:
        monitor = Monitor()
        store = new_store()
        async with running_engine(store, observer=monitor) as engine:
            driver = Driver(send_to(engine), seed, **mode)
            outcome = await driver.run(REQUESTS)
            assert outcome.difference is None, str(outcome)
            monitor.check_everything()
            monitor.compare(await store.dump("default"))
            assert (await driver.finish()).difference is None
        seen += outcome.seen
    assert Outcome(0, seen=seen).missed == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_engine_conforms(new_store: Callable[[], Store], case: Case) -> None:
    """The engine answers each conformance case as the protocol asks."""
    async with running_engine(new_store(), debug=case.debug) as engine:
        send = send_to(engine)

        async def one(envelope: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            [answer] = await send([envelope])
            return answer

        assert await run_case(one, case) == []
