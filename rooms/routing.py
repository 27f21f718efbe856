"""Where sockets come in. A site puts ``websocket_application()`` into its ``asgi.py``::

    application = ProtocolTypeRouter(
        {"http": get_asgi_application(), "websocket": rooms.routing.websocket_application()}
    )

or ``websocket_urlpatterns`` into a ``URLRouter`` of its own, behind ``AuthMiddlewareStack``.
"""

from __future__ import annotations

from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from django.urls import path, re_path

from rooms.consumers import RoomConsumer, refuse

websocket_urlpatterns = [path("ws/rooms/<str:application>/", RoomConsumer.as_asgi())]


# ``re_path`` is declared for HTTP views; Channels routes ASGI applications with it.
_refused: Any = refuse


def websocket_application() -> Any:
    """The ASGI application for sockets: Django's session and user, then the addresses of rooms."""
    return AuthMiddlewareStack(URLRouter([*websocket_urlpatterns, re_path("", _refused)]))
