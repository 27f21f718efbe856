"""The events that the server sends."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType, json

from rooms.protocol.types import CommandId, LeftReason, Mode, RemovedReason, User, Value


class Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Anything the server sends."""


class Connected(Event, frozen=True, kw_only=True, tag="connected"):
    connection: str
    application: str
    user: User | None
    ping: int
    version: int


class Reply(Event, frozen=True, kw_only=True, tag="reply"):
    """The answer to a successful command; ``data`` encodes to a JSON object."""

    id: CommandId | None
    data: object


class Error(Event, frozen=True, kw_only=True, tag="error"):
    """The answer to a failed command, or to one that cannot be decoded."""

    id: CommandId | UnsetType = UNSET
    code: str
    message: str
    retry: bool = False


class Message(Event, frozen=True, kw_only=True, tag="message", rename={"sender": "from"}):
    """A message in a room.

    ``sender`` is None for a message of the server, ``seq`` is None if the history does not store the message,
    ``time`` is RFC 3339 in UTC with milliseconds.
    """

    room: str
    event: str
    data: Raw
    sender: User | None
    seq: int | None
    time: str
    to: list[str] | UnsetType = UNSET
    state: bool | UnsetType = UNSET
    # The form of the message in its sender's protocol, for clients of the same protocol only.
    original: Raw | UnsetType = UNSET

    @property
    def value(self) -> Any:
        """``data`` as Python values."""
        return json.decode(self.data)


class Joined(Event, frozen=True, kw_only=True, tag="joined"):
    room: str
    user: User


class Rejoined(Event, frozen=True, kw_only=True, tag="rejoined"):
    """A member has joined again. Only protocols whose clients expect that encode it."""

    room: str
    user: User


class Left(Event, frozen=True, kw_only=True, tag="left"):
    room: str
    user: User
    reason: LeftReason


class Members(Event, frozen=True, kw_only=True, tag="members"):
    """A presence diff: the joins and leaves of a large room since the last one.

    Both lists are in the order of each user's last change; a user with both is only in the list of the
    last one. ``count`` is the number of members now. The lists of users are JSON already, because thousands
    of diffs hold much the same users.
    """

    room: str
    count: int
    joined: Raw
    left: Raw


class RoomInfo(Value, frozen=True, kw_only=True):
    """A room as a list of rooms shows it."""

    name: str
    title: str
    members: int
    max_members: int | None
    mode: Mode


class RoomAdded(Event, frozen=True, kw_only=True, tag="room_added"):
    room: RoomInfo


class RoomEdited(RoomAdded, frozen=True, kw_only=True, tag="room_added"):
    """A listed room has changed; native clients receive the same as for a new room."""


class RoomRemoved(Event, frozen=True, kw_only=True, tag="room_removed"):
    room: str


class Removed(Event, frozen=True, kw_only=True, tag="removed"):
    """The connection was removed from a room; ``renamed`` is its new name, if any."""

    room: str
    reason: RemovedReason
    message: str | UnsetType = UNSET
    renamed: str | UnsetType = UNSET


class Direct(Event, frozen=True, kw_only=True, tag="direct"):
    """A message to one user or connection. ``room`` is only passed on.

    ``sender`` is None for a message of the server. ``outside`` marks a message between clients that need not
    share a room: only protocols whose clients expect that encode it.
    """

    room: str
    event: str
    data: Raw
    sender: User | None
    to: str
    outside: bool = False


class Closing(Event, frozen=True, kw_only=True, tag="closing"):
    """The last event before a close; ``retry_in`` (seconds) includes jitter."""

    code: int
    message: str
    retry_in: float | UnsetType = UNSET


RoomEvent: TypeAlias = Message | Joined | Rejoined | Left | Direct
