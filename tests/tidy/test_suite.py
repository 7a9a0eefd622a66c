"""The suite itself: tests that are coroutines run, fail and end in time."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A directory with this suite's conftest and no tests yet."""
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    return pytester


def test_coroutines_run_as_tests(suite: pytest.Pytester) -> None:
    """An `async def` test gets its fixtures, passes when it ends, and fails when it raises."""
    suite.makepyfile(
        """
        import asyncio

        async def test_passes(tmp_path):
            await asyncio.sleep(0)
            assert tmp_path.is_dir()

        async def test_fails():
            await asyncio.sleep(0)
            assert False
        """
    )
    suite.runpytest().assert_outcomes(passed=1, failed=1)


def test_a_coroutine_that_never_ends_is_cancelled_where_it_waits(suite: pytest.Pytester) -> None:
    """Past its time limit a test fails, and its report shows the line that waited."""
    suite.makepyfile(
        """
        import asyncio
        import pytest

        @pytest.mark.timeout(0.2)
        async def test_hangs():
            await asyncio.Event().wait()  # the line that waits
        """
    )
    # Without the plugin that stands behind it, which would race against a limit this short.
    result = suite.runpytest("-p", "no:timeout")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*await asyncio.Event().wait()*", "*TimeoutError*"])


def test_given_examples_may_be_coroutines(suite: pytest.Pytester) -> None:
    """Under `@given` every example of an `async def` test runs, and a counterexample fails it."""
    suite.makepyfile(
        """
        import asyncio
        from hypothesis import given, strategies

        @given(strategies.integers())
        async def test_holds(number):
            await asyncio.sleep(0)
            assert number == int(str(number))

        @given(strategies.integers())
        async def test_does_not_hold(number):
            assert number < 1000
        """
    )
    suite.runpytest().assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(("promised", "outcome"), [("", "skipped"), ("1", "failed")])
def test_a_missing_server_skips_or_fails(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, promised: str, outcome: str
) -> None:
    """A test without its server is skipped, and fails where KEPT_REQUIRE_SERVERS=1 promises it."""
    monkeypatch.setenv("KEPT_REQUIRE_SERVERS", promised)
    suite.makepyfile(
        """
        def test_with_a_server(unavailable):
            unavailable("the server")
        """
    )
    suite.runpytest().assert_outcomes(**{outcome: 1})
