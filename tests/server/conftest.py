"""Fixtures of the tests of the server."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_close_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the timeouts that hide a connection which does not close by itself."""
    for module in ("transport", "websocket"):
        monkeypatch.setattr(f"rooms.server.{module}.LINGER_TIMEOUT", 3600)
    monkeypatch.setattr("rooms.server.transport.CLOSE_TIMEOUT", 3600)
