"""The URLs of WebSockets and their protocols, called like a server does."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.urls import path

from rooms.conf import PROTOCOL_CLASSES, PROTOCOL_NAMES
from rooms.node.node import Node
from rooms.routing import endpoint, websocket_application

PATHS = {
    "native": "/ws/rooms/chat/",
    "roomer": "/ws/roomer/chat/",
    "rtbroadcaster": "/ws/rtbroadcaster/chat/",
    "goroomserver": "/ws/goroomserver/",
    "gowsev": "/ws/gowsev/chat/",
}


@pytest.fixture(autouse=True)
async def node(transactional_db: None) -> AsyncIterator[None]:
    yield
    if (running := Node.current()) is not None:
        await running.stop()


async def first_response(application: Callable[..., Any], address: str) -> dict[str, Any]:
    """The first ASGI message to a handshake, after which the client disconnects."""
    return (await responses(application, address))[0]


async def responses(application: Callable[..., Any], address: str, *extensions: str) -> list[dict[str, Any]]:
    """All ASGI messages to a handshake, for a server with these ASGI extensions."""
    messages: list[dict[str, Any]] = []
    events = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> dict[str, Any]:
        return next(events)

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {
        "type": "websocket",
        "path": address,
        "raw_path": address.encode(),
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "extensions": {name: {} for name in extensions},
    }
    async with asyncio.timeout(60):
        await application(scope, receive, send)
    return messages


def test_every_protocol_has_a_path() -> None:
    assert tuple(PROTOCOL_CLASSES) == PROTOCOL_NAMES == tuple(PATHS)


@pytest.mark.parametrize("name", PROTOCOL_CLASSES)
async def test_each_protocol_is_accepted_at_its_path(name: str) -> None:
    assert (await first_response(websocket_application(), PATHS[name]))["type"] == "websocket.accept"


@pytest.mark.parametrize("name", PROTOCOL_CLASSES)
async def test_the_final_slash_is_optional(name: str) -> None:
    application = websocket_application()
    assert (await first_response(application, PATHS[name].rstrip("/")))["type"] == "websocket.accept"
    for other in (f"{PATHS[name]}/", f"{PATHS[name]}x", f"/x{PATHS[name]}"):
        assert (await first_response(application, other))["type"] == "websocket.close"


@pytest.mark.parametrize("name", PROTOCOL_CLASSES)
async def test_a_site_allows_the_protocols_of_its_settings(name: str, settings: Any) -> None:
    settings.ROOMS = {"PROTOCOLS": [each for each in PROTOCOL_CLASSES if each != name]}
    assert (await first_response(websocket_application(), PATHS[name]))["type"] == "websocket.close"
    other = next(each for each in PROTOCOL_CLASSES if each != name)
    assert (await first_response(websocket_application(), PATHS[other]))["type"] == "websocket.accept"


async def test_by_default_only_the_native_protocol_is_allowed(settings: Any) -> None:
    settings.ROOMS = {}
    messages = {
        name: (await first_response(websocket_application(), PATHS[name]))["type"]
        for name in PROTOCOL_CLASSES
    }
    assert [name for name, type in messages.items() if type == "websocket.accept"] == ["native"]


async def test_an_endpoint_can_have_any_path() -> None:
    application = websocket_application(
        [path("", endpoint("goroomserver")), path("old", endpoint("roomer", "chat"))]
    )
    assert (await first_response(application, "/"))["type"] == "websocket.accept"
    assert (await first_response(application, "/old"))["type"] == "websocket.accept"
    assert (await first_response(application, "/older"))["type"] == "websocket.close"


def test_an_unknown_protocol_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Expected a protocol of native, roomer, .*, got 'matrix'"):
        endpoint("matrix")


def test_an_error_in_the_settings_stops_the_server_at_its_start(settings: Any) -> None:
    settings.ROOMS = {"PNG_INTERVAL": 3}
    with pytest.raises(ImproperlyConfigured, match="did you mean PING_INTERVAL"):
        websocket_application()


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rooms.consumers"]


async def test_an_unknown_path_is_answered_with_404_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "rooms.consumers")
    application, address = websocket_application(), f"/ws/gowsev/{uuid.uuid4()}/chat"
    for _ in range(3):
        start, body = await responses(application, address, "websocket.http.response")
        assert (start["status"], body["body"].decode()) == (404, f"No WebSocket is served at {address}.")
    assert logged(caplog) == [f"Refused a socket: no WebSocket is served at '{address}'."]


async def test_a_protocol_that_is_not_allowed_is_answered_with_403_and_logged_once(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    caplog.set_level("INFO", "rooms.consumers")
    settings.ROOMS = {"PROTOCOLS": ["native"]}
    application, address = websocket_application(), f"/ws/gowsev/{uuid.uuid4()}"
    for _ in range(3):
        start, body = await responses(application, address, "websocket.http.response")
        assert (start["status"], body["body"]) == (403, b"This site does not accept gowsev clients.")
    assert logged(caplog) == [f"Refused a socket at '{address}': ROOMS[\"PROTOCOLS\"] has no gowsev."]


async def test_a_route_without_an_application_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    application = websocket_application(
        [
            path("lost", endpoint("roomer")),
            path("all", endpoint("goroomserver")),
            path("one", endpoint("roomer", "one")),
        ]
    )
    for address in ("/all", "/one", "/ws/roomer/chat", "/lost"):
        await first_response(application, address)
    assert [line.partition(":")[0] for line in logged(caplog)] == ["The address '/lost' names no application"]
