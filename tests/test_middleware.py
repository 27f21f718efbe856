"""WebSocket handshakes: origin check, client address, session and user."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.compatibility import guarantee_single_callable
from asgiref.sync import SyncToAsync, sync_to_async
from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from rooms import middleware
from rooms.middleware import with_user


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


@pytest.fixture(autouse=True)
def site(settings: Any) -> None:
    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["rooms.example", "[2001:db8::1]"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://friend.example", "https://*.family.example"]


def test_a_handshake_without_an_origin_is_allowed() -> None:
    assert middleware.origin_is_allowed(headers(host="rooms.example"))
    assert middleware.origin_is_allowed([])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://rooms.example", "rooms.example"),
        ("http://rooms.example:8000", "rooms.example:8000"),
        ("https://ROOMS.example", "rooms.Example"),
        ("http://[2001:db8::1]:8000", "[2001:db8::1]:8000"),
        ("https://friend.example", "rooms.example"),
        ("https://FRIEND.example/", "rooms.example"),
        ("https://a.family.example", "rooms.example"),
        ("https://a.b.family.example", "rooms.example"),
    ],
)
def test_pages_of_the_site_and_of_trusted_origins_are_allowed(origin: str, host: str) -> None:
    assert middleware.origin_is_allowed(headers(origin=origin, host=host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "rooms.example"),
        ("null", "rooms.example"),
        ("", "rooms.example"),
        ("https://rooms.example:444", "rooms.example"),
        # The same origin, but not a host of the site: DNS rebinding.
        ("https://evil.example", "evil.example"),
        ("file://rooms.example", "rooms.example"),
        ("https://rooms.example.evil.example", "rooms.example"),
        ("http://friend.example", "rooms.example"),
        ("https://family.example", "rooms.example"),
        ("https://evilfamily.example", "rooms.example"),
        ("http://a.family.example", "rooms.example"),
        ("https://[", "rooms.example"),
        ("https://[rooms.example", "[rooms.example"),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, host: str) -> None:
    assert not middleware.origin_is_allowed(headers(origin=origin, host=host))


def test_without_a_host_only_trusted_origins_are_allowed() -> None:
    assert not middleware.origin_is_allowed(headers(origin="https://rooms.example"))
    assert middleware.origin_is_allowed(headers(origin="https://friend.example"))


def test_localhost_is_allowed_with_debug(settings: Any) -> None:
    settings.ALLOWED_HOSTS = []
    here = headers(origin="http://localhost:8000", host="localhost:8000")
    assert not middleware.origin_is_allowed(here)
    settings.DEBUG = True
    assert middleware.origin_is_allowed(here)
    assert middleware.origin_is_allowed(headers(origin="http://[::1]:8000", host="[::1]:8000"))


def test_header_returns_the_first_of_a_name() -> None:
    assert middleware.header([(b"a", b"1"), (b"a", b"2")], b"a") == "1"
    assert middleware.header([], b"a") is None


@pytest.mark.parametrize(
    ("forwarded", "num_proxies", "address"),
    [
        (None, 0, "10.0.0.1"),
        (None, 2, "10.0.0.1"),
        # Without a trusted proxy, the header is ignored.
        ("203.0.113.9", 0, "10.0.0.1"),
        ("203.0.113.9", 1, "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", 1, "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.0.0.2", 2, "203.0.113.9"),
        ("203.0.113.9", 2, "203.0.113.9"),
    ],
)
def test_the_clients_address_behind_proxies(forwarded: str | None, num_proxies: int, address: str) -> None:
    given = [] if forwarded is None else headers(x_forwarded_for=forwarded)
    assert middleware.client_address(given, "10.0.0.1", num_proxies) == address


@pytest.mark.parametrize(
    ("forwarded", "num_proxies", "address"),
    [
        # The header that the client sent comes first, that of the proxy last.
        (["6.6.6.6", "203.0.113.9"], 1, "203.0.113.9"),
        (["6.6.6.6, 6.6.6.7", "203.0.113.9"], 1, "203.0.113.9"),
        (["6.6.6.6", "6.6.6.7", "203.0.113.9, 10.0.0.2"], 2, "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9", "10.0.0.2"], 2, "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2"], 3, "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9"], 0, "10.0.0.1"),
    ],
)
def test_the_clients_address_with_several_headers(
    forwarded: list[str], num_proxies: int, address: str
) -> None:
    given = [header for each in forwarded for header in headers(via="1.1 proxy", x_forwarded_for=each)]
    assert middleware.client_address(given, "10.0.0.1", num_proxies) == address


def test_a_unix_socket_has_no_address() -> None:
    assert middleware.client_address([], "", 0) == ""


async def scope_of(wrapped: Any, *cookies: str) -> dict[str, Any]:
    """The scope of the wrapped application."""
    scopes: list[dict[str, Any]] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scopes.append(scope)

    headers = [(b"host", b"localhost"), *((b"cookie", each.encode()) for each in cookies)]
    given = {"type": "websocket", "path": "/", "headers": headers}
    await wrapped(application)(given, None, None)
    assert "user" not in given
    return scopes[0]


def signed_in() -> str:
    user = get_user_model().objects.create_user("ann")
    client = Client()
    client.force_login(user)
    return f"other=1; {settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("wrapped", [with_user, AuthMiddlewareStack])
async def test_the_user_of_the_session_is_in_the_scope(wrapped: Any) -> None:
    cookie = await sync_to_async(signed_in)()
    scope = await scope_of(wrapped, cookie)
    assert (scope["user"].get_username(), scope["user"].is_authenticated) == ("ann", True)
    assert scope["session"].session_key == scope["cookies"][settings.SESSION_COOKIE_NAME]
    assert scope["cookies"]["other"] == "1"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("wrapped", [with_user, AuthMiddlewareStack])
async def test_an_unknown_session_has_an_anonymous_user(wrapped: Any) -> None:
    scope = await scope_of(wrapped, f"{settings.SESSION_COOKIE_NAME}=gone")
    assert not scope["user"].is_authenticated


async def test_without_a_session_no_thread_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hops: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(SyncToAsync, "__call__", lambda self, *given: hops.append(self))
        for cookies in ([], ["csrftoken=x"], [f"{settings.SESSION_COOKIE_NAME}="]):
            scope = await scope_of(with_user, *cookies)
            assert not scope["user"].is_authenticated
            assert (scope["session"].session_key, scope["session"].is_empty()) == (None, True)
    assert hops == []


async def test_the_middleware_is_called_as_an_asgi_3_application() -> None:
    """asgiref would call a plain function with the scope alone, as in ASGI 2."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    application = guarantee_single_callable(with_user(inner))
    answers: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    await application({"type": "websocket", "headers": []}, None, send)
    assert answers == [{"type": "websocket.accept"}]
