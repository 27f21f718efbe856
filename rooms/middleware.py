"""WebSocket handshakes: origin check, client address, session and user.

Browsers send cookies with handshakes from any page, so only pages of the site itself or of
``CSRF_TRUSTED_ORIGINS`` may connect. Other programs send no Origin; they may connect, and their cookies are
ignored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from channels.auth import get_user
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import parse_cookie
from django.http.request import validate_host

LOCAL_HOSTS = (".localhost", "127.0.0.1", "[::1]")

Headers = Iterable[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> str | None:
    """Return the first header of a name in lower case."""
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def origin_is_allowed(headers: Headers) -> bool:
    """Return whether a handshake with these headers may be accepted."""
    origin = header(headers, b"origin")
    if origin is None:
        return True
    if origin.rstrip("/").lower() in _trusted() or _matches_wildcard(origin):
        return True
    host = (header(headers, b"host") or "").lower()
    try:
        parts = urlsplit(origin.lower())
        hostname = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    allowed = settings.ALLOWED_HOSTS or (LOCAL_HOSTS if settings.DEBUG else ())
    if ":" in hostname:
        hostname = f"[{hostname}]"
    return parts.scheme in ("http", "https") and parts.netloc == host and validate_host(hostname, allowed)


def client_address(headers: Headers, peer: str, num_proxies: int) -> str:
    """Return the client's address.

    It is the peer's, or, behind ``num_proxies`` trusted proxies, the address that the outermost of them added
    to ``X-Forwarded-For``. Empty where the peer has none (a Unix socket).
    """
    # A proxy may add another header instead of appending to the first.
    forwarded = [value.decode("latin-1") for key, value in headers if key == b"x-forwarded-for"]
    if not num_proxies or not forwarded:
        return peer
    hops = [hop.strip() for hop in ",".join(forwarded).split(",")]
    return hops[-num_proxies] if len(hops) >= num_proxies else hops[0]


def _trusted() -> set[str]:
    return {origin.rstrip("/").lower() for origin in settings.CSRF_TRUSTED_ORIGINS}


def _matches_wildcard(origin: str) -> bool:
    """Match ``https://*.example.com`` with subdomains, like Django's CSRF check."""
    scheme, _, host = origin.lower().partition("://")
    return any(
        trusted.startswith(f"{scheme}://*.") and host.endswith(trusted.partition("*")[2])
        for trusted in _trusted()
    )


ASGIApplication: TypeAlias = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def with_user(inner: Any) -> ASGIApplication:
    """Wrap an ASGI application, adding cookies, session and user to the scope."""

    # Not a coroutine function: each WebSocket would keep one more coroutine.
    def application(scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        cookies = _cookies(scope)
        key = cookies.get(settings.SESSION_COOKIE_NAME)
        session = import_module(settings.SESSION_ENGINE).SessionStore(key)
        extended = {**scope, "cookies": cookies, "session": session, "user": AnonymousUser()}
        work: Awaitable[None] = (_with_stored_user if key else inner)(extended, receive, send)
        return work

    # asgiref takes a callable that is not a coroutine function for an ASGI 2 application without this mark.
    application._asgi_single_callable = True  # type: ignore[attr-defined]

    async def _with_stored_user(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["user"] = await get_user(scope)
        await inner(scope, receive, send)

    return application


def _cookies(scope: dict[str, Any]) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"cookie":
            return parse_cookie(value.decode("latin-1"))
    return {}
