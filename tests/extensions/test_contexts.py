"""The arguments of handlers: calls to the node, and the reply to the sender."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock

import pytest

from rooms.extensions import JoinEvent, LeaveEvent, MessageEvent, RoomContext
from rooms.protocol.types import User

ANN = User(name="ann", id="1", guest=False)


@pytest.fixture
def services() -> Any:
    return AsyncMock()


@pytest.fixture
def room(services: Any) -> RoomContext:
    return RoomContext(services, "chat", "lobby")


async def test_publish_names_the_room(services: Any, room: RoomContext) -> None:
    await room.publish("score", {"ann": 1})
    services.publish.assert_awaited_once_with(
        "chat", "lobby", {"ann": 1}, event="score", to=None, state=False, volatile=False
    )
    await room.publish("score", 1, to=["ann"], state=True, volatile=True)
    services.publish.assert_awaited_with(
        "chat", "lobby", 1, event="score", to=["ann"], state=True, volatile=True
    )


async def test_members_and_history_name_the_room(services: Any, room: RoomContext) -> None:
    assert await room.members() is services.members.return_value
    services.members.assert_awaited_once_with("chat", "lobby")
    assert await room.history(5) is services.history.return_value
    services.history.assert_awaited_once_with("chat", "lobby", 5)


def test_the_repr_of_a_room_has_application_and_name(room: RoomContext) -> None:
    assert repr(room) == "<RoomContext chat/lobby>"


async def test_awaiting_a_reply_is_optional(room: RoomContext) -> None:
    event = MessageEvent(room, ANN, "c", "answer", {"guess": 1})
    event.reply({"right": True})
    await event.reply({"points": 3})
    assert event.reply_data == {"right": True, "points": 3}


async def test_an_event_sends_through_its_connection(room: RoomContext) -> None:
    replies = AsyncMock()
    event = MessageEvent(room, ANN, "c", "answer", None, replies=replies)
    assert await event.send("hint", 1) is replies.send.return_value
    replies.send.assert_awaited_once_with("hint", 1, None)
    await event.send("hint", 1, room="other")
    replies.send.assert_awaited_with("hint", 1, "other")
    assert await event.send_to_room("news", 2) is replies.send_to_room.return_value
    replies.send_to_room.assert_awaited_once_with("news", 2, None)
    await event.send_to_user("ben", "psst", 3)
    replies.send_to_user.assert_awaited_once_with("ben", "psst", 3)


async def test_send_to_room_needs_a_room_where_the_message_has_none() -> None:
    replies = AsyncMock()
    event = MessageEvent(None, ANN, "c", "answer", None, replies=replies)
    with pytest.raises(ValueError, match="Expected the argument room"):
        await event.send_to_room("news", 2)
    await event.send_to_room("news", 2, room="lobby")
    replies.send_to_room.assert_awaited_once_with("news", 2, "lobby")


async def test_sending_needs_a_connection(room: RoomContext) -> None:
    with pytest.raises(RuntimeError, match="no connection to send through"):
        await MessageEvent(room, ANN, "c", "answer", None).send("hint", 1)


def test_claims_are_empty_and_frozen_unless_the_handshake_set_some(room: RoomContext) -> None:
    for event in (JoinEvent(room, ANN, "c"), LeaveEvent(room, ANN, "left")):
        assert event.claims == {}
        with pytest.raises(TypeError):
            event.claims["user"] = "ben"  # type: ignore[index]
    assert JoinEvent(room, ANN, "c", claims={"user": "ann"}).claims == {"user": "ann"}


def test_a_reply_is_a_dict(room: RoomContext) -> None:
    event = MessageEvent(room, ANN, "c", "answer", None)
    with pytest.raises(TypeError, match="Expected a dict as the reply, got str"):
        event.reply("yes")  # type: ignore[arg-type]
