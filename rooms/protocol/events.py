"""What the server says."""

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
    """Yes. ``data`` is anything that encodes to a JSON object."""

    id: CommandId | None
    data: object


class Error(Event, frozen=True, kw_only=True, tag="error"):
    """No. Also what a codec yields for a request that it could not read."""

    id: CommandId | UnsetType = UNSET
    code: str
    message: str
    retry: bool = False


class Message(Event, frozen=True, kw_only=True, tag="message", rename={"sender": "from"}):
    """Something said in a room. ``sender`` is None for what the server itself says, ``seq`` is None
    where no history keeps it, ``time`` is RFC 3339 UTC with milliseconds."""

    room: str
    event: str
    data: Raw
    sender: User | None
    seq: int | None
    time: str
    to: list[str] | UnsetType = UNSET
    state: bool | UnsetType = UNSET
    # What the sender's own protocol said beyond that, for those who speak it too; others never see it.
    original: Raw | UnsetType = UNSET

    @property
    def value(self) -> Any:
        """``data`` as Python values."""
        return json.decode(self.data)


class Joined(Event, frozen=True, kw_only=True, tag="joined"):
    room: str
    user: User


class Rejoined(Event, frozen=True, kw_only=True, tag="rejoined"):
    """A member said once more that they come in. Told by protocols whose clients expect that."""

    room: str
    user: User


class Left(Event, frozen=True, kw_only=True, tag="left"):
    room: str
    user: User
    reason: LeftReason


class Members(Event, frozen=True, kw_only=True, tag="members"):
    """Who came to a large room and who went since its members were told last, each in the order of their last
    change. Somebody who did both is where the last of it took them. ``count`` is how many there are now. The
    lists of users are JSON already: thousands of digests tell of much the same ones."""

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
    """A listed room is another now; to native clients the same as a new one."""


class RoomRemoved(Event, frozen=True, kw_only=True, tag="room_removed"):
    room: str


class Removed(Event, frozen=True, kw_only=True, tag="removed"):
    """The receiving connection is out of this room; ``renamed`` is the name by which it still exists."""

    room: str
    reason: RemovedReason
    message: str | UnsetType = UNSET
    renamed: str | UnsetType = UNSET


class Direct(Event, frozen=True, kw_only=True, tag="direct"):
    """Something said to one user or connection alone; ``room`` is only told. ``sender`` is None for what the
    server says. ``outside`` is what one client says to another with whom it need not share the room: told
    only by protocols whose clients expect that."""

    room: str
    event: str
    data: Raw
    sender: User | None
    to: str
    outside: bool = False


class Closing(Event, frozen=True, kw_only=True, tag="closing"):
    """The last word before a close; ``retry_in`` (seconds) is already jittered."""

    code: int
    message: str
    retry_in: float | UnsetType = UNSET


RoomEvent: TypeAlias = Message | Joined | Rejoined | Left | Direct
