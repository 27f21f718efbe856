"""The ASGI application: routes HTTP to Django and WebSockets to `rooms.routing`.

`daphne roomsite.asgi:application` or `uvicorn roomsite.asgi:application` serves the site.
"""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "roomsite.settings")
django_application = get_asgi_application()

# After get_asgi_application(), which sets Django up: these modules import models.
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.urls import path

from rooms.routing import endpoint, websocket_application

application = ProtocolTypeRouter(
    {
        # In production the web server in front serves the files that `collectstatic` collects.
        "http": ASGIStaticFilesHandler(django_application) if settings.DEBUG else django_application,
        "websocket": websocket_application(
            [
                # The URLs that clients of the original servers use.
                path("ws", endpoint("roomer", "roomer")),
                path("broadcasting", endpoint("rtbroadcaster", "rtbroadcaster")),
                path("", endpoint("goroomserver")),
            ]
        ),
    }
)
