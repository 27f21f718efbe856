"""Control messages on the channel layer."""

from __future__ import annotations

import msgspec
import pytest

from rooms.node.control_messages import (
    AnyControlMessage,
    ApplicationChanged,
    RoomChanged,
    UserDisconnected,
)

# Nodes of two versions share a layer during an update: these are not changed.
WIRE: list[tuple[AnyControlMessage, bytes]] = [
    (
        ApplicationChanged(application="chat"),
        b'{"type":"application_changed","application":"chat"}',
    ),
    (
        RoomChanged(application="chat", room=7, name="lobby", listed=True),
        b'{"type":"room_changed","application":"chat","room":7,"name":"lobby","listed":true,"deleted":false}',
    ),
    (
        UserDisconnected(application=None, user="1", code=4503, message="Bye."),
        b'{"type":"user_disconnected","application":null,"user":"1","code":4503,"message":"Bye."}',
    ),
]


@pytest.mark.parametrize(("message", "encoded"), WIRE)
def test_messages_are_encoded_and_decoded(message: AnyControlMessage, encoded: bytes) -> None:
    assert msgspec.json.encode(message) == encoded
    assert msgspec.json.decode(encoded, type=AnyControlMessage) == message


def test_a_room_is_neither_listed_nor_deleted_by_default() -> None:
    encoded = b'{"type":"room_changed","application":"chat","room":7,"name":"lobby"}'
    message = msgspec.json.decode(encoded, type=AnyControlMessage)
    assert isinstance(message, RoomChanged)
    assert (message.listed, message.deleted) == (False, False)


@pytest.mark.parametrize("encoded", [b"{}", b'{"type":"other"}', b'{"type":"application_changed"}', b"[]"])
def test_other_messages_are_an_error(encoded: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(encoded, type=AnyControlMessage)
