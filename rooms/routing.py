"""Where sockets come in. A site puts ``websocket_application()`` into its ``asgi.py``::

    application = ProtocolTypeRouter(
        {"http": get_asgi_application(), "websocket": rooms.routing.websocket_application()}
    )

or ``websocket_urlpatterns`` into a ``URLRouter`` of its own, behind ``AuthMiddlewareStack``. Which of the
doors are open, ``ROOMS["PROTOCOLS"]`` says.
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
    """The ASGI application for sockets that speak one protocol, to be routed to an address of your choice.

    ``name`` is one of native, roomer, rtbroadcaster, goroomserver, gowsev; ``application`` is the room
    application that is entered, unless the route's keyword ``application`` says it. Raises ValueError for
    another name.
    """
    if name not in PROTOCOL_NAMES:
        raise ValueError(f"There is no door {name!r}. Lawful: {', '.join(PROTOCOL_NAMES)}.")
    protocol = load_protocol(name)
    session = MultiplexSession if protocol.options.multiplexes_applications else Session
    return RoomConsumer.as_asgi(protocol=protocol, application=application, session=session)


# Sockets are not redirected, so the final slash may be left out.
websocket_urlpatterns = [
    re_path(r"^ws/rooms/(?P<application>[^/]+)/?\Z", endpoint("native")),
    re_path(r"^ws/roomer/(?P<application>[^/]+)/?\Z", endpoint("roomer")),
    re_path(r"^ws/rtbroadcaster/(?P<application>[^/]+)/?\Z", endpoint("rtbroadcaster")),
    re_path(r"^ws/goroomserver/?\Z", endpoint("goroomserver")),
    re_path(r"^ws/gowsev/(?P<application>[^/]+)/?\Z", endpoint("gowsev")),
]


# ``re_path`` is declared for HTTP views; Channels routes ASGI applications with it.
_refused: Any = refuse


def websocket_application(more: Sequence[Any] = ()) -> Any:
    """The ASGI application for sockets: Django's session and user, then the addresses of rooms, and
    ``more`` routes of the site's own."""
    # A mistake in ``ROOMS`` stops the server at its start.
    get_settings()
    return with_user(URLRouter([*websocket_urlpatterns, *more, re_path("", _refused)]))
