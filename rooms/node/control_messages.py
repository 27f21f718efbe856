"""What processes tell each other, besides what rooms are told: never sent to a client."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class ControlMessage(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Something happened that open sockets may have to hear of."""


class ApplicationChanged(ControlMessage, frozen=True, kw_only=True, tag="application_changed"):
    """A row of an application, or what hangs on it (bans), was saved or deleted. ``application`` is
    the name that clients know so far."""

    application: str


class RoomChanged(ControlMessage, frozen=True, kw_only=True, tag="room_changed"):
    """A room was made, changed or removed. ``name`` is the one that clients know so far, ``listed``
    whether they saw it in a list."""

    application: str
    room: int
    name: str
    listed: bool = False
    deleted: bool = False


class UserDisconnected(ControlMessage, frozen=True, kw_only=True, tag="user_disconnected"):
    """Every connection of a user is to be closed, in one application or in all (None)."""

    application: str | None
    user: str
    code: int
    message: str


AnyControlMessage: TypeAlias = ApplicationChanged | RoomChanged | UserDisconnected
