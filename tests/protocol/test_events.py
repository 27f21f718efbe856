"""Events are frozen, slotted values with the field names of the wire."""

from __future__ import annotations

import msgspec
import pytest

from rooms.protocol.events import Event, Joined, Message, RoomEdited
from rooms.protocol.types import User
from tests.protocol.structs import check_struct, structs_below

ANN = User(name="ann", id="1", guest=False)
EVENTS = structs_below(Event)


@pytest.mark.parametrize("kind", EVENTS)
def test_every_event_is_frozen_slotted_and_keyword_only(kind: type[Event]) -> None:
    check_struct(kind)


def test_the_tags_of_events_are_unique() -> None:
    # To native clients an edited room is one that was added.
    tags = [each.__struct_config__.tag for each in EVENTS if each is not RoomEdited]
    assert len(tags) == len(set(tags))


def test_the_sender_is_called_from_on_the_wire() -> None:
    message = Message(room="lobby", event="message", data=msgspec.Raw(b'"hi"'), sender=ANN, seq=1, time="t")
    assert msgspec.json.decode(msgspec.json.encode(message)) == {
        "type": "message",
        "room": "lobby",
        "event": "message",
        "data": "hi",
        "from": {"name": "ann", "id": "1", "guest": False},
        "seq": 1,
        "time": "t",
    }


def test_events_with_equal_fields_are_equal() -> None:
    assert Joined(room="a", user=ANN) == Joined(room="a", user=User(name="ann", id="1", guest=False))
