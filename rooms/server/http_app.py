"""What is behind a listening address: the site's own ASGI application, or one door at every path."""

from __future__ import annotations

from typing import Any

from channels.routing import ProtocolTypeRouter, get_default_application
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from rooms.middleware import with_user
from rooms.routing import endpoint
from rooms.server.addresses import Address
from rooms.views import upgrade_required


class _OnlySockets(ASGIHandler):
    """Django's handler for HTTP, of which only the reading and writing is used: there are no pages."""

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return upgrade_required(request)


def application_at(address: Address) -> Any:
    """The ASGI application of an address. Raises ImproperlyConfigured where the site's cannot be found."""
    if address.protocol is None:
        return get_default_application()
    sockets = with_user(endpoint(address.protocol, address.application))
    return ProtocolTypeRouter({"http": _OnlySockets(), "websocket": sockets})
