"""Who opens a socket: Django's session and user in the scope, as Channels' ``AuthMiddlewareStack`` has them.

Most clients of rooms bring no session. For them nothing is asked of the database, and nothing of this
stays in memory for as long as the socket is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, TypeAlias

from channels.auth import get_user
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import parse_cookie

Application: TypeAlias = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def with_user(inner: Any) -> Application:
    """The ASGI application whose scope has ``cookies``, ``session`` and ``user`` besides."""

    # No coroutine of its own, which each socket would keep.
    def application(scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        cookies = _cookies(scope)
        key = cookies.get(settings.SESSION_COOKIE_NAME)
        session = import_module(settings.SESSION_ENGINE).SessionStore(key)
        known = {**scope, "cookies": cookies, "session": session, "user": AnonymousUser()}
        found: Awaitable[None] = (_asked if key else inner)(known, receive, send)
        return found

    async def _asked(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["user"] = await get_user(scope)
        await inner(scope, receive, send)

    return application


def _cookies(scope: dict[str, Any]) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"cookie":
            return parse_cookie(value.decode("latin-1"))
    return {}
