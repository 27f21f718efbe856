"""The data of replies."""

from __future__ import annotations

from rooms.protocol.events import Message
from rooms.protocol.types import Mode, Position, User, Value


class You(Value, frozen=True, kw_only=True):
    """What the receiver may do in a room."""

    send: bool
    moderate: bool


class RoomDetails(Value, frozen=True, kw_only=True):
    """A room as its members and its creator see it."""

    name: str
    title: str
    mode: Mode
    owner: str | None
    max_members: int | None
    you: You


class JoinData(Value, frozen=True, kw_only=True):
    room: RoomDetails
    members: list[User]
    count: int
    state: list[Message]
    messages: list[Message]
    recovered: bool
    position: Position | None


class HistoryData(Value, frozen=True, kw_only=True):
    """Earlier messages, oldest first; ``more`` if there are others beyond them."""

    messages: list[Message]
    more: bool


class SentData(Value, frozen=True, kw_only=True):
    seq: int | None
    time: str
