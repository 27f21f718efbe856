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

from rooms.consumers import RoomConsumer

websocket_urlpatterns = [path("ws/rooms/<str:application>/", RoomConsumer.as_asgi())]


async def _refused(scope: Any, receive: Any, send: Any) -> None:
    """Any other address: the handshake is answered with 403 rather than with a server error."""
    await receive()
    await send({"type": "websocket.close"})


# ``re_path`` is declared for HTTP views; Channels routes ASGI applications with it.
_refuse: Any = _refused


def websocket_application() -> Any:
    """The ASGI application for sockets: Django's session and user, then the addresses of rooms."""
    return AuthMiddlewareStack(URLRouter([*websocket_urlpatterns, re_path("", _refuse)]))
