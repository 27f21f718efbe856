"""The door for ASGI servers: HTTP goes to Django, WebSockets go to the rooms.

`daphne roomsite.asgi:application` or `uvicorn roomsite.asgi:application` serves the site.
The WebSocket side continues in `rooms.routing`.
"""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "roomsite.settings")
django_application = get_asgi_application()

# Only now: get_asgi_application() has set Django up, and what follows needs its models.
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.urls import path

from rooms.routing import endpoint, websocket_application

application = ProtocolTypeRouter(
    {
        # In production the web server in front serves what `collectstatic` gathered.
        "http": ASGIStaticFilesHandler(django_application) if settings.DEBUG else django_application,
        "websocket": websocket_application(
            [
                # Where the original servers' own clients look for them.
                path("ws", endpoint("roomer", "roomer")),
                path("broadcasting", endpoint("rtbroadcaster", "rtbroadcaster")),
                path("", endpoint("goroomserver")),
            ]
        ),
    }
)
