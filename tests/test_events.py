"""Events are frozen, slotted values that carry the wire's names."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rooms import protocol as package
from rooms.protocol.commands import Command, Ping
from rooms.protocol.events import Event, Joined, Message, RoomEdited
from rooms.protocol.types import Position, User, Value

ANN = User(name="ann", id="1", guest=False)


def descendants(kind: type) -> list[type]:
    return [each for child in kind.__subclasses__() for each in (child, *descendants(child))]


CLASSES: list[Any] = [each for base in (Value, Command, Event) for each in descendants(base)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_event_is_a_frozen_slotted_keyword_only_value(kind: Any) -> None:
    if not kind.__module__.startswith(f"{package.__name__}."):
        pytest.skip("of another test")
    config = kind.__struct_config__
    assert config.frozen
    assert not hasattr(kind, "__dict__") or "__dict__" not in vars(kind)
    with pytest.raises(TypeError):
        kind("positional")


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ANN.name = "bob"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Ping().other = 1  # type: ignore[attr-defined]


def test_tags_are_unique_among_what_travels_one_way() -> None:
    for base in (Command, Event):
        # To native clients an edited room is one that was added.
        events = [each for each in descendants(base) if each is not RoomEdited]
        tags = [
            each.__struct_config__.tag for each in events if each.__module__.startswith("rooms.protocol.")
        ]
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


def test_an_event_with_equal_fields_is_equal() -> None:
    assert Joined(room="a", user=ANN) == Joined(room="a", user=User(name="ann", id="1", guest=False))
    assert Position(epoch="e", seq=1) != Position(epoch="e", seq=2)
