"""Plain HTTP where only WebSockets are spoken."""

from __future__ import annotations

import pytest
from django.test import Client

ADDRESSES = ["/ws", "/ws/", "/ws/roomer/chat/", "/ws/rooms/chat/", "/ws/goroomserver/", "/broadcasting"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_request_that_is_no_handshake_is_told_so(client: Client, address: str) -> None:
    response = client.get(address)
    assert response.status_code == 426
    assert (response["Upgrade"], response["Connection"]) == ("websocket", "Upgrade")
    assert response.text == "This is the address of a WebSocket: open it as ws:// or wss://.\n"
    assert response["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_any_method_but_get_is_not_allowed(address: str, method: str) -> None:
    response = Client(enforce_csrf_checks=True).generic(method, address)
    assert (response.status_code, response["Allow"]) == (405, "GET")


@pytest.mark.parametrize("address", ["/wsx", "/wsx/", "/broadcastingx", "/ws%0A"])
def test_other_addresses_are_none_of_these(client: Client, address: str) -> None:
    assert client.get(address).status_code == 404


@pytest.mark.django_db
def test_a_site_that_is_closed_to_strangers_answers_the_same(client: Client, settings) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert client.get("/ws").status_code == 426


@pytest.mark.django_db
def test_the_home_page_stays_where_goroomserver_is(client: Client) -> None:
    assert client.get("/").status_code == 200
