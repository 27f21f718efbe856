"""Addresses of sockets and the protocols that are spoken there, as an ASGI server sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.urls import path

from rooms.conf import DOORS
from rooms.engine.engine import Engine
from rooms.protocols import PROTOCOLS
from rooms.routing import door, websocket_application

ADDRESSES = {
    "native": "/ws/rooms/chat/",
    "roomer": "/ws/roomer/chat/",
    "rtbroadcaster": "/ws/rtbroadcaster/chat/",
    "goroomserver": "/ws/goroomserver/",
    "gowsev": "/ws/gowsev/chat/",
}


@pytest.fixture(autouse=True)
async def engine(transactional_db: None) -> AsyncIterator[None]:
    yield
    if (running := Engine.running()) is not None:
        await running.stop()


async def answer(application: Callable[..., Any], address: str) -> dict[str, Any]:
    """What a handshake is answered with; the socket ends at once."""
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
    }
    async with asyncio.timeout(20):
        await application(scope, receive, send)
    return answers[0]


def test_there_is_a_protocol_for_every_door() -> None:
    assert tuple(PROTOCOLS) == DOORS == tuple(ADDRESSES)


@pytest.mark.parametrize("name", DOORS)
async def test_each_door_has_its_address(name: str) -> None:
    assert (await answer(websocket_application(), ADDRESSES[name]))["type"] == "websocket.accept"


@pytest.mark.parametrize("name", DOORS)
async def test_a_site_opens_the_doors_that_it_names(name: str, settings: Any) -> None:
    settings.ROOMS = {"DOORS": [each for each in DOORS if each != name]}
    assert (await answer(websocket_application(), ADDRESSES[name]))["type"] == "websocket.close"
    other = next(each for each in DOORS if each != name)
    assert (await answer(websocket_application(), ADDRESSES[other]))["type"] == "websocket.accept"


async def test_without_a_word_only_native_clients_are_let_in(settings: Any) -> None:
    settings.ROOMS = {}
    answers = {name: (await answer(websocket_application(), ADDRESSES[name]))["type"] for name in DOORS}
    assert [name for name, said in answers.items() if said == "websocket.accept"] == ["native"]


async def test_a_site_may_put_a_door_anywhere() -> None:
    application = websocket_application([path("", door("goroomserver")), path("old", door("roomer", "chat"))])
    assert (await answer(application, "/"))["type"] == "websocket.accept"
    assert (await answer(application, "/old"))["type"] == "websocket.accept"
    assert (await answer(application, "/older"))["type"] == "websocket.close"


def test_a_door_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no door 'matrix'\. Lawful: native, roomer"):
        door("matrix")
