"""The options of `kept serve`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from kept.cli import serve
from kept.cli.failure import UsageError
from kept.cli.main import main
from kept.errors import ConfigurationError
from kept.server.serve import ServerOptions


def parsed(*argv: str) -> ServerOptions:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser, argparse.ArgumentParser(add_help=False))
    return serve.server_options(parser.parse_args(argv))


def test_defaults_are_the_servers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the server gets exactly its own defaults: loopback, port 8420, kept.db."""
    names = ("KEPT_HOST", "KEPT_PORT", "KEPT_STORE", "KEPT_AUTH_SECRET", "KEPT_WEBHOOK_SECRET")
    for name in names:
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


def test_webhook_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets from a file or the environment; where webhooks may go from both together."""
    (tmp_path / "secrets").write_text(f"{'n' * 32}\n{'o' * 32}\n")
    monkeypatch.setenv("KEPT_WEBHOOK_SECRET", "e" * 32)
    monkeypatch.setenv("KEPT_WEBHOOK_NETWORKS", "10.1.0.0/16")
    options = parsed().webhooks
    assert (options.secrets, options.private, options.private_workers) == (
        (b"e" * 32,),
        False,
        True,
    )
    assert "e" * 32 not in repr(options)
    options = parsed(
        *("--webhook-secret-file", str(tmp_path / "secrets"), "--allow-private-webhooks"),
        *("--allow-webhooks-to", "10.2.0.1", "--no-private-workers"),
    ).webhooks
    assert options.secrets == (b"n" * 32, b"o" * 32)
    assert (options.private, options.private_workers) == (True, False)
    assert [str(network) for network in options.networks] == ["10.1.0.0/16", "10.2.0.1/32"]


@pytest.mark.parametrize("secret", ["short", "a" * 32 + " " + "b" * 32 + " " + "c" * 32])
def test_wrong_webhook_secrets_are_refused(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can be guessed, and more than are used at one time."""
    monkeypatch.setenv("KEPT_WEBHOOK_SECRET", secret)
    with pytest.raises(ConfigurationError, match="webhook secret"):
        parsed()


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
