"""What a handler is given: thin ways to the engine, and the answer to the sender."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock

import pytest

from rooms.events import User
from rooms.extensions import MessageEvent, RoomContext

ANN = User(name="ann", id="1", guest=False)


@pytest.fixture
def services() -> Any:
    return AsyncMock()


@pytest.fixture
def room(services: Any) -> RoomContext:
    return RoomContext(services, "chat", "lobby")


async def test_a_room_publishes_in_itself(services: Any, room: RoomContext) -> None:
    await room.publish("score", {"ann": 1})
    services.publish.assert_awaited_once_with(
        "chat", "lobby", {"ann": 1}, event="score", to=None, state=False, volatile=False
    )
    await room.publish("score", 1, to=["ann"], state=True, volatile=True)
    services.publish.assert_awaited_with(
        "chat", "lobby", 1, event="score", to=["ann"], state=True, volatile=True
    )


async def test_a_room_tells_of_members_and_history(services: Any, room: RoomContext) -> None:
    assert await room.members() is services.members.return_value
    services.members.assert_awaited_once_with("chat", "lobby")
    assert await room.history(5) is services.history.return_value
    services.history.assert_awaited_once_with("chat", "lobby", 5)


def test_a_room_shows_where_it_is(room: RoomContext) -> None:
    assert repr(room) == "<RoomContext chat/lobby>"


async def test_a_reply_may_be_awaited_and_need_not_be(room: RoomContext) -> None:
    event = MessageEvent(room, ANN, "c", "answer", {"guess": 1})
    event.reply({"right": True})
    await event.reply({"points": 3})
    assert event.answer == {"right": True, "points": 3}


def test_a_reply_is_a_dict(room: RoomContext) -> None:
    event = MessageEvent(room, ANN, "c", "answer", None)
    with pytest.raises(TypeError, match="A reply is a dict, got str"):
        event.reply("yes")  # type: ignore[arg-type]
