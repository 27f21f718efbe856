"""Protocols for the fan-out's tests: what they encode can be read at a glance, and is counted."""

from __future__ import annotations

import itertools
from typing import ClassVar

import msgspec
from msgspec import Raw

from rooms.hub.connection import Connection
from rooms.protocol.base import Protocol, ProtocolOptions
from rooms.protocol.commands import Command
from rooms.protocol.events import Closing, Error, Event, Members, Message
from rooms.protocol.types import User

_ids = itertools.count(1)


class Plain(Protocol):
    """Writes a message as its event's name, anything else as its tag; counts what it encodes."""

    name: ClassVar[str] = "plain"

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


class Shouting(Plain):
    """Another protocol in the same room."""

    encoded: ClassVar[int] = 0

    @classmethod
    def _text(cls, event: Event | Command) -> bytes:
        return super()._text(event).upper()


class Silent(Plain):
    """Has no word for anything."""

    encoded: ClassVar[int] = 0

    def encode(self, event: Event | Command) -> bytes | None:
        return None

    @classmethod
    def encode_broadcast(cls, event: Event, application: str) -> bytes | None:
        cls.encoded += 1
        return None


class Lines(Plain):
    """Frames that leave together are one frame of several lines."""

    separator: ClassVar[bytes | None] = b"\n"


class Each(Plain):
    """Hears of each who comes and goes."""

    encoded: ClassVar[int] = 0
    options: ClassVar[ProtocolOptions] = ProtocolOptions(presence_events="each")


class Digesting(Plain):
    """Hears of many at once; writes how many there are, who came and who went."""

    encoded: ClassVar[int] = 0
    options: ClassVar[ProtocolOptions] = ProtocolOptions(presence_events="diffs")

    @classmethod
    def _text(cls, event: Event | Command) -> bytes:
        if not isinstance(event, Members):
            return super()._text(event)
        words = [str(event.count), *(f"+{name}" for name in names_of(event.joined))]
        return " ".join([*words, *(f"-{name}" for name in names_of(event.left))]).encode()


def message(event: str, seq: int | None = None) -> Message:
    return Message(room="lobby", event=event, data=Raw(b"null"), sender=None, seq=seq, time="t")


def connection(protocol: Protocol | None = None, user: str | None = None) -> Connection:
    """A connection; ``user`` is id and name of whom it belongs to."""
    made = Connection(f"c{next(_ids)}", protocol or Plain())
    made.user = User(name=user, id=user, guest=True) if user else None
    return made


def told(connection: Connection) -> list[str]:
    """What has been queued for it since the last look."""
    return [frame.decode() for frame in connection.take()]


def names_of(users: Raw) -> list[str]:
    """The names in a list of users that is JSON."""
    return [user.name for user in msgspec.json.decode(users, type=list[User])]
