"""Checks that ``ASGI_APPLICATION`` serves WebSockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.handlers.asgi import ASGIHandler
from django.utils.module_loading import import_string

_WEBSOCKET = '"websocket": rooms.routing.websocket_application()'


def check_asgi_application(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """Check that ASGI_APPLICATION can be imported and has a route for WebSockets."""
    return list(_check())


def _check() -> Iterator[CheckMessage]:
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        yield Error(
            "ASGI_APPLICATION is not set, so no server serves the WebSockets of rooms.",
            hint='Set ASGI_APPLICATION = "yoursite.asgi.application", and give its ProtocolTypeRouter '
            f"{_WEBSOCKET}.",
            id="rooms.E001",
        )
        return
    try:
        application = import_string(path)
    except Exception as error:  # a site's module may raise any
        yield Error(
            f"ASGI_APPLICATION cannot be imported from {path!r}.",
            hint=f"{type(error).__name__}: {error}",
            id="rooms.E001",
        )
        return
    # Other applications, such as a middleware around either, cannot be inspected and pass.
    if isinstance(application, ProtocolTypeRouter):
        has_route = "websocket" in application.application_mapping
    else:
        has_route = not isinstance(application, ASGIHandler)
    if not has_route:
        yield Warning(
            f"{path} has no route for WebSockets, so no server serves those of rooms.",
            hint=f'In that module: application = ProtocolTypeRouter({{"http": …, {_WEBSOCKET}}}).',
            id="rooms.W005",
        )
