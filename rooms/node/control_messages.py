"""Control messages between nodes. They are never sent to a client."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class ControlMessage(Struct, frozen=True, kw_only=True, tag_field="type"):
    """A change that may concern open sockets."""


class ApplicationChanged(ControlMessage, frozen=True, kw_only=True, tag="application_changed"):
    """The row of an application, or one of its bans and mutes, was saved or deleted.

    ``application`` is the name that clients know so far.
    """

    application: str


class RoomChanged(ControlMessage, frozen=True, kw_only=True, tag="room_changed"):
    """A room was created, changed or deleted.

    ``name`` is the one that clients know so far, ``listed`` whether it was in the room list.
    """

    application: str
    room: int
    name: str
    listed: bool = False
    deleted: bool = False


class UserDisconnected(ControlMessage, frozen=True, kw_only=True, tag="user_disconnected"):
    """All connections of a user are to be closed.

    It concerns one application, or all (None).
    """

    application: str | None
    user: str
    code: int
    message: str


AnyControlMessage: TypeAlias = ApplicationChanged | RoomChanged | UserDisconnected
