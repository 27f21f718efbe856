"""Addresses of sockets and the protocols that are spoken there, as an ASGI server sees them."""

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

ADDRESSES = {
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


async def answer(application: Callable[..., Any], address: str) -> dict[str, Any]:
    """What a handshake is answered with first; the socket ends at once."""
    return (await answers_to(application, address))[0]


async def answers_to(application: Callable[..., Any], address: str, *extensions: str) -> list[dict[str, Any]]:
    """All that a handshake is answered with by a server that knows these extensions of ASGI."""
    answers: list[dict[str, Any]] = []
    events = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> dict[str, Any]:
        return next(events)

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

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
    async with asyncio.timeout(20):
        await application(scope, receive, send)
    return answers


def test_there_is_a_protocol_for_every_door() -> None:
    assert tuple(PROTOCOL_CLASSES) == PROTOCOL_NAMES == tuple(ADDRESSES)


@pytest.mark.parametrize("name", PROTOCOL_CLASSES)
async def test_each_door_has_its_address(name: str) -> None:
    assert (await answer(websocket_application(), ADDRESSES[name]))["type"] == "websocket.accept"


@pytest.mark.parametrize("name", PROTOCOL_CLASSES)
async def test_the_final_slash_may_be_left_out(name: str) -> None:
    application = websocket_application()
    assert (await answer(application, ADDRESSES[name].rstrip("/")))["type"] == "websocket.accept"
    for other in (f"{ADDRESSES[name]}/", f"{ADDRESSES[name]}x", f"/x{ADDRESSES[name]}"):
        assert (await answer(application, other))["type"] == "websocket.close"


@pytest.mark.parametrize("name", PROTOCOL_CLASSES)
async def test_a_site_opens_the_doors_that_it_names(name: str, settings: Any) -> None:
    settings.ROOMS = {"PROTOCOLS": [each for each in PROTOCOL_CLASSES if each != name]}
    assert (await answer(websocket_application(), ADDRESSES[name]))["type"] == "websocket.close"
    other = next(each for each in PROTOCOL_CLASSES if each != name)
    assert (await answer(websocket_application(), ADDRESSES[other]))["type"] == "websocket.accept"


async def test_without_a_word_only_native_clients_are_let_in(settings: Any) -> None:
    settings.ROOMS = {}
    answers = {
        name: (await answer(websocket_application(), ADDRESSES[name]))["type"] for name in PROTOCOL_CLASSES
    }
    assert [name for name, said in answers.items() if said == "websocket.accept"] == ["native"]


async def test_a_site_may_put_a_door_anywhere() -> None:
    application = websocket_application(
        [path("", endpoint("goroomserver")), path("old", endpoint("roomer", "chat"))]
    )
    assert (await answer(application, "/"))["type"] == "websocket.accept"
    assert (await answer(application, "/old"))["type"] == "websocket.accept"
    assert (await answer(application, "/older"))["type"] == "websocket.close"


def test_a_door_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no door 'matrix'\. Lawful: native, roomer"):
        endpoint("matrix")


def test_a_mistake_in_the_settings_stops_the_server_at_its_start(settings: Any) -> None:
    settings.ROOMS = {"PNG_INTERVAL": 3}
    with pytest.raises(ImproperlyConfigured, match="did you mean PING_INTERVAL"):
        websocket_application()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rooms.consumers"]


async def test_an_address_without_a_door_is_told_so_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "rooms.consumers")
    application, address = websocket_application(), f"/ws/gowsev/{uuid.uuid4()}/chat"
    for _ in range(3):
        start, body = await answers_to(application, address, "websocket.http.response")
        assert (start["status"], body["body"].decode()) == (404, f"There is no door at {address}.")
    assert told(caplog) == [f"Refused a socket: there is no door at '{address}'."]


async def test_a_door_that_the_site_has_closed_is_told_so_and_logged_once(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    caplog.set_level("INFO", "rooms.consumers")
    settings.ROOMS = {"PROTOCOLS": ["native"]}
    application, address = websocket_application(), f"/ws/gowsev/{uuid.uuid4()}"
    for _ in range(3):
        start, body = await answers_to(application, address, "websocket.http.response")
        assert (start["status"], body["body"]) == (403, b"This site does not let in gowsev clients.")
    assert told(caplog) == [f"Refused a socket at '{address}': ROOMS[\"PROTOCOLS\"] has no gowsev."]


async def test_a_route_that_leads_into_no_application_is_told(caplog: pytest.LogCaptureFixture) -> None:
    application = websocket_application(
        [
            path("lost", endpoint("roomer")),
            path("all", endpoint("goroomserver")),
            path("one", endpoint("roomer", "one")),
        ]
    )
    for address in ("/all", "/one", "/ws/roomer/chat", "/lost"):
        await answer(application, address)
    assert [line.partition(":")[0] for line in told(caplog)] == [
        "The address '/lost' leads into no application"
    ]
