"""From a URL to an engine of one's own: what the environment says of webhooks holds there too."""

from __future__ import annotations

import pytest

from kept.client.connect import connect
from kept.client.local import LocalConnection
from kept.errors import ConfigurationError
from kept.runtime import SystemRuntime


async def test_a_secret_of_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too short is refused before anything is opened; a good one is taken."""
    runtime = SystemRuntime()
    monkeypatch.setenv("KEPT_WEBHOOK_SECRET", "short")
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        await connect("memory://", runtime)
    monkeypatch.setenv("KEPT_WEBHOOK_SECRET", "s" * 32)
    monkeypatch.setenv("KEPT_WEBHOOK_NETWORKS", "nowhere")
    with pytest.raises(ConfigurationError, match="KEPT_WEBHOOK_NETWORKS"):
        await connect("memory://", runtime)
    monkeypatch.setenv("KEPT_WEBHOOK_NETWORKS", "10.0.0.0/8")
    connection = await connect("memory://", runtime)
    assert isinstance(connection, LocalConnection)
    await connection.close()
