"""`app.sync`: the app for code that does not await."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import kept


@pytest.fixture
def app(tmp_path: Path) -> Iterator[kept.App]:
    """An app with functions of every kind, closed in the end."""
    app = kept.App(f"sqlite:///{tmp_path / 'kept.db'}")

    @app.function
    async def double(number: int) -> int:
        return number * 2

    @app.function
    async def review(ctx: kept.Context) -> list[object]:
        ctx.set_state(stage="asked")
        return [await ctx.promise("word"), await ctx.receive("more")]

    @app.function
    async def waits(ctx: kept.Context) -> object:
        return await ctx.promise("never")

    @app.function
    async def fails() -> None:
        raise LookupError("gone")

    with app.sync:
        yield app


def find(app: kept.App, name: str) -> kept.Function[..., object]:
    """A function of the app."""
    return app._registry.by_reference(f"{name}@1")


def test_work_is_started_and_awaited(app: kept.App) -> None:
    """By function, by name, many at once; errors are those of the work."""
    double, fails = find(app, "double"), find(app, "fails")
    assert app.sync.run(double, 4) == 8
    assert app.sync.start(double, 5, id="five").result(timeout=10) == 10
    assert app.sync.handle("five", int).result() == 10
    assert app.sync.enqueue("double", args={"number": 6}).result() == 12
    assert [each.result() for each in app.sync.start_many(double, [(1,), (2,)])] == [2, 4]
    with pytest.raises(kept.PromiseRejectedError, match="gone"):
        app.sync.run(fails)


def test_running_work_is_spoken_to(app: kept.App) -> None:
    """Answers, messages, states, cancellation."""
    review = app.sync.start(find(app, "review"), id="r")
    app.sync.send("r", "more", 2)
    while not _resolves(app, "r.word", 1):
        pass
    assert review.result() == [1, 2]
    assert (review.done(), review.state().attributes) == (True, {"stage": "asked"})
    waits = app.sync.start(find(app, "waits"))
    with pytest.raises(TimeoutError):
        waits.result(timeout=0.01)
    assert waits.cancel("enough")
    with pytest.raises(kept.PromiseCanceledError):
        waits.result(timeout=10)
    settings = app.sync.call(lambda app: app.queues.pause("mail"))
    assert settings is not None


def _resolves(app: kept.App, id: str, value: object) -> bool:
    """Whether somebody asked for it already."""
    try:
        app.sync.resolve(id, value)
    except kept.NotFoundError:
        return False
    return True


def test_threads_share_it(app: kept.App) -> None:
    """All of them use one loop."""
    double = find(app, "double")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: app.sync.run(double, number), range(40)))
    assert found == [number * 2 for number in range(40)]


def test_it_opens_with_the_first_call_and_again(app: kept.App) -> None:
    """Nothing has to be opened before, and what was closed opens again."""
    app.sync.close()
    app.sync.close()
    assert app.sync.run(find(app, "double"), 1) == 2


async def test_a_running_loop_is_not_blocked(app: kept.App) -> None:
    """Where one could await, a blocking call is a mistake that says so."""
    with pytest.raises(kept.ConfigurationError, match="await"):
        app.sync.run(find(app, "double"), 1)


def test_a_script_need_not_close_it(tmp_path: Path) -> None:
    """Its end closes the app: nothing is printed, and what its worker held is handed back."""
    script = tmp_path / "script.py"
    script.write_text(
        "import kept\n"
        "app = kept.App('sqlite:///script.db')\n"
        "@app.function\n"
        "async def job() -> str:\n"
        "    return 'done'\n"
        "print(app.sync.run(job))\n"
    )
    ended = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_a_forked_process_has_its_own(app: kept.App) -> None:
    """As in servers that load the program once and fork: the child opens anew, the parent goes on."""
    double = find(app, "double")
    assert app.sync.run(double, 1) == 2
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        with app.sync:
            there.send(app.sync.run(double, 2))

    process = context.Process(target=child)
    process.start()
    assert here.poll(30)
    assert here.recv() == 4
    process.join(30)
    assert process.exitcode == 0
    assert app.sync.run(double, 3) == 6
