"""The words of the house: what clients ask and what the server says.

All are frozen, slotted values. The same class is used by every protocol, on the bus and in the
engine. Their fields carry the native protocol's names, so that its codec is a plain encoding of
them; other protocols translate. ``data`` is kept as the JSON text that was sent (``Raw``): nobody
on the way of a message parses it unless an extension asks.

Next in the flow: ``protocols/native.py`` turns frames into requests.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, json

Mode: TypeAlias = Literal["open", "broadcast"]
LeftReason: TypeAlias = Literal["left", "dropped", "kicked", "closed"]
RemovedReason: TypeAlias = Literal["kicked", "banned", "closed", "logged_out"]

Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
RequestId: TypeAlias = Integer | Annotated[str, Meta(max_length=64)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Capacity: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
EventName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
# What a name may be before it is normalised, which is slow for long texts.
UserName: TypeAlias = Annotated[str, Meta(max_length=256)]
Password: TypeAlias = Annotated[str, Meta(max_length=128)]


class Value(Struct, frozen=True, kw_only=True):
    """A part of an event."""


class User(Value, frozen=True, kw_only=True):
    """Somebody as others see them. ``id`` is a Django primary key, or a random one for a guest."""

    name: str
    id: str
    guest: bool


class Position(Value, frozen=True, kw_only=True):
    """A place in a room's history: ``seq`` counts from 1 within one ``epoch``."""

    epoch: str
    seq: Count


# What clients ask --------------------------------------------------------------------------------


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Anything a client asks. Its answer repeats ``id``; without one, success is silent."""

    id: RequestId | None = None


class Login(Request, frozen=True, kw_only=True, tag="login"):
    name: UserName | None = None
    token: str | None = None


class Logout(Request, frozen=True, kw_only=True, tag="logout"):
    pass


class ListRooms(Request, frozen=True, kw_only=True, tag="rooms"):
    prefix: Annotated[str, Meta(max_length=128)] | None = None
    limit: Count | None = None


class CreateRoom(Request, frozen=True, kw_only=True, tag="create"):
    room: str
    title: Annotated[str, Meta(max_length=200)] | None = None
    mode: Mode | None = None
    max_members: Capacity | None = None
    password: Password | None = None


class CloseRoom(Request, frozen=True, kw_only=True, tag="close"):
    room: str


class Join(Request, frozen=True, kw_only=True, tag="join"):
    room: str
    password: Password | None = None
    since: Position | None = None
    limit: Count | None = None


class Leave(Request, frozen=True, kw_only=True, tag="leave"):
    room: str


class Subscribe(Request, frozen=True, kw_only=True, tag="subscribe"):
    """As ``Join``, but the connection only listens: no member, and it may not send."""

    room: str
    password: Password | None = None
    since: Position | None = None
    limit: Count | None = None


class Unsubscribe(Request, frozen=True, kw_only=True, tag="unsubscribe"):
    room: str


class Send(Request, frozen=True, kw_only=True, tag="message"):
    """Say something in a room; what the room hears is a ``Message``."""

    room: str
    data: Raw
    event: EventName | None = None
    key: Key | None = None
    to: UserName | list[UserName] | None = None
    state: bool | None = None
    volatile: bool | None = None
    echo: bool | None = None


class ReadHistory(Request, frozen=True, kw_only=True, tag="history"):
    room: str
    before: Integer | None = None
    after: Integer | None = None
    limit: Count | None = None


class ListMembers(Request, frozen=True, kw_only=True, tag="members"):
    room: str
    after: UserName | None = None
    limit: Count | None = None


class Ping(Request, frozen=True, kw_only=True, tag="ping"):
    """Asked by either side; the other answers ``Pong``."""


class Pong(Request, frozen=True, kw_only=True, tag="pong"):
    pass


# What the server says ----------------------------------------------------------------------------


class Push(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Anything the server sends."""


class Connected(Push, frozen=True, kw_only=True, tag="connected"):
    connection: str
    application: str
    user: User | None
    ping: int
    version: int


class Reply(Push, frozen=True, kw_only=True, tag="reply"):
    """Yes. ``data`` is anything that encodes to a JSON object."""

    id: RequestId | None
    data: object


class Error(Push, frozen=True, kw_only=True, tag="error"):
    """No. Also what a codec yields for a request that it could not read."""

    id: RequestId | UnsetType = UNSET
    code: str
    message: str
    retry: bool = False


class Message(Push, frozen=True, kw_only=True, tag="message", rename={"sender": "from"}):
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

    @property
    def value(self) -> Any:
        """``data`` as Python values."""
        return json.decode(self.data)


class Joined(Push, frozen=True, kw_only=True, tag="joined"):
    room: str
    user: User


class Left(Push, frozen=True, kw_only=True, tag="left"):
    room: str
    user: User
    reason: LeftReason


class RoomInfo(Value, frozen=True, kw_only=True):
    """A room as a list of rooms shows it."""

    name: str
    title: str
    members: int
    max_members: int | None
    mode: Mode


class RoomAdded(Push, frozen=True, kw_only=True, tag="room_added"):
    room: RoomInfo


class RoomRemoved(Push, frozen=True, kw_only=True, tag="room_removed"):
    room: str


class Removed(Push, frozen=True, kw_only=True, tag="removed"):
    """The receiving connection is out of this room; ``renamed`` is the name by which it still exists."""

    room: str
    reason: RemovedReason
    message: str | UnsetType = UNSET
    renamed: str | UnsetType = UNSET


class Closing(Push, frozen=True, kw_only=True, tag="closing"):
    """The last word before a close; ``retry_in`` (seconds) is already jittered."""

    code: int
    message: str
    retry_in: float | UnsetType = UNSET


# What replies hold -------------------------------------------------------------------------------


class You(Value, frozen=True, kw_only=True):
    """What the receiver may do in a room."""

    send: bool
    moderate: bool


class RoomDetails(Value, frozen=True, kw_only=True):
    """A room as one who is in it, or made it, sees it."""

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


class SentData(Value, frozen=True, kw_only=True):
    seq: int | None
    time: str


RoomEvent: TypeAlias = Message | Joined | Left
