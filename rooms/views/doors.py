"""What plain HTTP is told where only WebSockets are spoken."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt

PLAIN = "text/plain; charset=utf-8"


# Neither a token nor a login would change the answer.
@csrf_exempt
@login_not_required
def upgrade_required(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """426 with what to upgrade to (RFC 9110, 15.5.22); 405 for any method but GET, as handshakes are."""
    if request.method != "GET":
        text = f"This is the address of a WebSocket, which begins with GET, not with {request.method}.\n"
        return HttpResponseNotAllowed(["GET"], text, content_type=PLAIN)
    response = HttpResponse(
        "This is the address of a WebSocket: open it as ws:// or wss://.\n", status=426, content_type=PLAIN
    )
    response["Upgrade"] = "websocket"
    response["Connection"] = "Upgrade"
    return response
