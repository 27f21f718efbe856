"""The commands of native clients."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

from rooms.protocol.types import (
    Capacity,
    CommandId,
    Count,
    EventName,
    Integer,
    Key,
    Mode,
    Password,
    Position,
    UserName,
)


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """A command of a client.

    The answer repeats ``id``. Without an id only errors are answered.
    """

    id: CommandId | None = None


class Login(Command, frozen=True, kw_only=True, tag="login"):
    name: UserName | None = None
    token: str | None = None


class Logout(Command, frozen=True, kw_only=True, tag="logout"):
    pass


class ListRooms(Command, frozen=True, kw_only=True, tag="rooms"):
    prefix: Annotated[str, Meta(max_length=128)] | None = None
    limit: Count | None = None


class CreateRoom(Command, frozen=True, kw_only=True, tag="create"):
    room: str
    title: Annotated[str, Meta(max_length=200)] | None = None
    mode: Mode | None = None
    max_members: Capacity | None = None
    password: Password | None = None


class CloseRoom(Command, frozen=True, kw_only=True, tag="close"):
    room: str


class Join(Command, frozen=True, kw_only=True, tag="join"):
    room: str
    password: Password | None = None
    since: Position | None = None
    limit: Count | None = None


class Leave(Command, frozen=True, kw_only=True, tag="leave"):
    room: str


class Subscribe(Command, frozen=True, kw_only=True, tag="subscribe"):
    """Like ``Join``, but only to receive: no membership, no messages."""

    room: str
    password: Password | None = None
    since: Position | None = None
    limit: Count | None = None


class Unsubscribe(Command, frozen=True, kw_only=True, tag="unsubscribe"):
    room: str


class Send(Command, frozen=True, kw_only=True, tag="message"):
    """Send a message to a room, whose members receive a ``Message``."""

    room: str
    data: Raw
    event: EventName | None = None
    key: Key | None = None
    to: UserName | list[UserName] | None = None
    state: bool | None = None
    volatile: bool | None = None
    echo: bool | None = None


class ReadHistory(Command, frozen=True, kw_only=True, tag="history"):
    room: str
    before: Integer | None = None
    after: Integer | None = None
    limit: Count | None = None


class ListMembers(Command, frozen=True, kw_only=True, tag="members"):
    room: str
    after: UserName | None = None
    limit: Count | None = None


class Ping(Command, frozen=True, kw_only=True, tag="ping"):
    """Sent by either side; the other answers ``Pong``."""


class Pong(Command, frozen=True, kw_only=True, tag="pong"):
    pass
