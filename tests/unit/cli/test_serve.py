"""The options of `kept serve`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from kept.cli import serve
from kept.cli.failure import UsageError
from kept.cli.main import main
from kept.server.serve import ServerOptions


def parsed(*argv: str) -> ServerOptions:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser, argparse.ArgumentParser(add_help=False))
    return serve.server_options(parser.parse_args(argv))


def test_defaults_are_the_servers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the server gets exactly its own defaults: loopback, port 8420, kept.db."""
    for name in ("KEPT_HOST", "KEPT_PORT", "KEPT_STORE", "KEPT_AUTH_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert parsed() == ServerOptions()


def test_options_reach_the_server(tmp_path: Path) -> None:
    """Each option lands in its field; times are durations; a secret comes from a file."""
    (tmp_path / "secret").write_text("s" * 40 + "\n")
    options = parsed(
        *("--host", "::1", "--port", "0", "--store", "memory://", "--debug"),
        *("--server-url", "http://x", "--auth-secret-file", str(tmp_path / "secret")),
        *("--max-connections", "7", "--grace", "1.5s", "--idle-timeout", "2m"),
        *("--retention", "14d"),
    )
    assert (options.host, options.port, options.store_url) == ("::1", 0, "memory://")
    assert options.debug
    assert options.server_url == "http://x"
    assert options.auth.secret == "s" * 40
    assert options.limits.connections == 7
    assert options.retention_ms == 14 * 86_400_000
    assert parsed("--retention", "none").retention_ms is None
    assert (options.limits.grace, options.limits.idle_timeout) == (1.5, 120)


def test_environment_gives_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """KEPT_… stand in for options that are not given."""
    monkeypatch.setenv("KEPT_PORT", "1234")
    monkeypatch.setenv("KEPT_STORE", "memory://")
    assert (parsed().port, parsed().store_url) == (1234, "memory://")
    assert parsed("--port", "1").port == 1


@pytest.mark.parametrize(
    "option", ["--port=70000", "--port=x", "--grace=5", "--max-body=0", "--retention=9ms"]
)
def test_wrong_options_are_usage_errors(option: str) -> None:
    """They end with exit code 2 before anything starts."""
    with pytest.raises(SystemExit) as exit_:
        main(["serve", option])
    assert exit_.value.code == 2


def test_missing_secret_is_named(tmp_path: Path) -> None:
    """A secret that cannot be read never means no authentication."""
    with pytest.raises(UsageError, match="missing"):
        parsed("--auth-secret-file", str(tmp_path / "missing"))
