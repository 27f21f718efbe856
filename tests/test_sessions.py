"""Who opens a socket: sessions are read where one is brought, and nothing is asked where none is."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from rooms.sessions import with_user


async def found(wrapped: Any, *cookies: str) -> dict[str, Any]:
    """The scope that the application behind is given."""
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
async def test_a_session_says_who_it_is(wrapped: Any) -> None:
    cookie = await sync_to_async(signed_in)()
    scope = await found(wrapped, cookie)
    assert (scope["user"].get_username(), scope["user"].is_authenticated) == ("ann", True)
    assert scope["session"].session_key == scope["cookies"][settings.SESSION_COOKIE_NAME]
    assert scope["cookies"]["other"] == "1"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("wrapped", [with_user, AuthMiddlewareStack])
async def test_a_session_that_is_not_there_says_nothing(wrapped: Any) -> None:
    scope = await found(wrapped, f"{settings.SESSION_COOKIE_NAME}=gone")
    assert not scope["user"].is_authenticated


async def test_without_a_session_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    hops: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(SyncToAsync, "__call__", lambda self, *given: hops.append(self))
        for cookies in ([], ["csrftoken=x"], [f"{settings.SESSION_COOKIE_NAME}="]):
            scope = await found(with_user, *cookies)
            assert not scope["user"].is_authenticated
            assert (scope["session"].session_key, scope["session"].is_empty()) == (None, True)
    assert hops == []
