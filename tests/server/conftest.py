"""What ends by itself in time is not to hide what does not end when it should."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transport", "websocket"):
        monkeypatch.setattr(f"rooms.server.{module}.LEAVE_SECONDS", 3600)
    monkeypatch.setattr("rooms.server.transport.CLOSE_SECONDS", 3600)
