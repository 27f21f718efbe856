"""Plain HTTP requests to the URLs of WebSockets."""

from __future__ import annotations

import pytest
from django.test import Client

PATHS = ["/ws", "/ws/", "/ws/roomer/chat/", "/ws/rooms/chat/", "/ws/goroomserver/", "/broadcasting"]


@pytest.mark.parametrize("path", PATHS)
def test_a_get_request_is_answered_with_426(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 426
    assert (response["Upgrade"], response["Connection"]) == ("websocket", "Upgrade")
    assert response.text == "This is the URL of a WebSocket: open it as ws:// or wss://.\n"
    assert response["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", PATHS)
def test_methods_other_than_get_are_not_allowed(path: str, method: str) -> None:
    response = Client(enforce_csrf_checks=True).generic(method, path)
    assert (response.status_code, response["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/wsx", "/wsx/", "/broadcastingx", "/ws%0A"])
def test_other_paths_are_not_found(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.django_db
def test_a_site_that_requires_a_login_answers_the_same(client: Client, settings) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert client.get("/ws").status_code == 426


@pytest.mark.django_db
def test_the_home_page_has_the_path_of_goroomserver(client: Client) -> None:
    assert client.get("/").status_code == 200
