"""Routes WebSockets to the consumer.

A site uses ``websocket_application()`` in its ``asgi.py``::

    application = ProtocolTypeRouter(
        {"http": get_asgi_application(), "websocket": rooms.routing.websocket_application()}
    )

or ``websocket_urlpatterns`` in its own ``URLRouter``, inside ``AuthMiddlewareStack``. Protocols that are
not in ``ROOMS["PROTOCOLS"]`` are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from channels.routing import URLRouter
from django.urls import re_path

from rooms.compat.multiplex import MultiplexSession
from rooms.conf import PROTOCOL_NAMES, get_settings, load_protocol
from rooms.consumers import RoomConsumer, refuse
from rooms.middleware import with_user
from rooms.node.session import Session


def endpoint(name: str, application: str | None = None) -> Any:
    """Make the ASGI application for WebSockets of one protocol, at any URL.

    ``name`` is one of native, roomer, rtbroadcaster, goroomserver, gowsev. ``application`` is the application
    of rooms; by default it is the keyword ``application`` of the route. Raises ValueError for any other name.
    """
    if name not in PROTOCOL_NAMES:
        raise ValueError(f"Expected a protocol of {', '.join(PROTOCOL_NAMES)}, got {name!r}.")
    protocol = load_protocol(name)
    session = MultiplexSession if protocol.options.multiplexes_applications else Session
    return RoomConsumer.as_asgi(protocol=protocol, application=application, session=session)


# WebSockets are not redirected, so the final slash is optional.
websocket_urlpatterns = [
    re_path(r"^ws/rooms/(?P<application>[^/]+)/?\Z", endpoint("native")),
    re_path(r"^ws/roomer/(?P<application>[^/]+)/?\Z", endpoint("roomer")),
    re_path(r"^ws/rtbroadcaster/(?P<application>[^/]+)/?\Z", endpoint("rtbroadcaster")),
    re_path(r"^ws/goroomserver/?\Z", endpoint("goroomserver")),
    re_path(r"^ws/gowsev/(?P<application>[^/]+)/?\Z", endpoint("gowsev")),
]


# The type of ``re_path`` expects an HTTP view; Channels routes ASGI applications with it.
_refuse: Any = refuse


def websocket_application(more: Sequence[Any] = ()) -> Any:
    """Make the ASGI application for WebSockets, with Django's session and user.

    It routes the URLs of rooms, and ``more`` routes of the site.
    """
    # An error in ``ROOMS`` stops the server at its start.
    get_settings()
    return with_user(URLRouter([*websocket_urlpatterns, *more, re_path("", _refuse)]))
