"""The check that the ASGI application serves WebSockets."""

from __future__ import annotations

from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from rooms.checks.asgi import check_asgi_application
from tests.checks.sites import assert_reported, messages

django_only = get_asgi_application()
http_only = ProtocolTypeRouter({"http": django_only})


async def wrapped(scope: Any, receive: Any, send: Any) -> None:
    """An application that cannot be inspected."""


@pytest.mark.parametrize("path", ["roomsite.asgi.application", f"{__name__}.wrapped"])
def test_a_sound_application_is_not_reported(settings: Any, path: str) -> None:
    assert messages(settings, {"ASGI_APPLICATION": path}) == []


@pytest.mark.parametrize(
    ("path", "id", "text"),
    [
        (None, "rooms.E001", "asgi.application"),
        ("roomsite.asgy.application", "rooms.E001", "No module named 'roomsite.asgy'"),
        ("roomsite.asgi.aplication", "rooms.E001", '"aplication"'),
        (f"{__name__}.http_only", "rooms.W005", "rooms.routing.websocket_application()"),
        (f"{__name__}.django_only", "rooms.W005", "ProtocolTypeRouter"),
    ],
)
def test_an_application_without_websockets_is_reported(
    settings: Any, path: str | None, id: str, text: str
) -> None:
    assert_reported(settings, {"ASGI_APPLICATION": path}, id, text)


def test_a_missing_setting_is_reported(settings: Any) -> None:
    del settings.ASGI_APPLICATION
    assert [message.id for message in check_asgi_application()] == ["rooms.E001"]
