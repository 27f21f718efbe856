"""Protocols for the tests of the hub: their frames are readable, and encodings are counted."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from msgspec import Raw

from rooms.protocol.base import Protocol, ProtocolOptions
from rooms.protocol.commands import Command
from rooms.protocol.events import Closing, Error, Event, Members, Message
from rooms.protocol.types import User


class Plain(Protocol):
    """Encodes a message as its event's name, any other event as its tag."""

    name: ClassVar[str] = "plain"

    # How often an event was encoded for a whole group.
    encoded: ClassVar[int] = 0

    def decode(self, frame: str | bytes) -> list[Command | Error]:
        return []

    def encode(self, event: Event | Command) -> bytes | None:
        return self._text(event)

    @classmethod
    def encode_broadcast(cls, event: Event, application: str) -> bytes | None:
        cls.encoded += 1
        return cls._text(event)

    @classmethod
    def _text(cls, event: Event | Command) -> bytes:
        if isinstance(event, Closing):
            return f"closing {event.code}".encode()
        return (event.event if isinstance(event, Message) else str(event.__struct_config__.tag)).encode()


class Uppercase(Plain):
    """Another protocol in the same room."""

    encoded: ClassVar[int] = 0

    @classmethod
    def _text(cls, event: Event | Command) -> bytes:
        return super()._text(event).upper()


class Silent(Plain):
    """Has no frame for any event."""

    encoded: ClassVar[int] = 0

    def encode(self, event: Event | Command) -> bytes | None:
        return None

    @classmethod
    def encode_broadcast(cls, event: Event, application: str) -> bytes | None:
        cls.encoded += 1
        return None


class Lines(Plain):
    """Joins frames that leave together into one frame of several lines."""

    separator: ClassVar[bytes | None] = b"\n"


class EachChange(Plain):
    """Receives every join and leave at once, and no diff."""

    encoded: ClassVar[int] = 0
    options: ClassVar[ProtocolOptions] = ProtocolOptions(presence_events="each")


class Diffs(Plain):
    """Receives diffs; encodes one as the number of users, ``+name`` of joins and ``-name`` of leaves."""

    encoded: ClassVar[int] = 0
    options: ClassVar[ProtocolOptions] = ProtocolOptions(presence_events="diffs")

    @classmethod
    def _text(cls, event: Event | Command) -> bytes:
        if not isinstance(event, Members):
            return super()._text(event)
        joined = [f"+{name}" for name in names_of(event.joined)]
        left = [f"-{name}" for name in names_of(event.left)]
        return " ".join([str(event.count), *joined, *left]).encode()


def names_of(users: Raw) -> list[str]:
    """The names in a JSON list of users."""
    return [user.name for user in msgspec.json.decode(users, type=list[User])]
