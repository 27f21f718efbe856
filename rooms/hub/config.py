"""Applications and rooms as plain, complete values.

The application or the settings fill in fields that a row of the database leaves blank; ``node/config.py``
resolves them once, so that the hub, the histories and the permissions read one frozen value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rooms.protocol import validators
from rooms.protocol.events import RoomInfo
from rooms.protocol.types import Mode, User


@dataclass(frozen=True, slots=True, kw_only=True)
class RestrictedUser:
    """A ban or mute of a user's id or a guest's name, and its reason.

    It applies until a time or without end.
    """

    user: str
    guest: str
    until: datetime | None
    reason: str

    def concerns(self, user: User) -> bool:
        """Whether it applies to a user now."""
        if self.until is not None and self.until <= datetime.now(self.until.tzinfo):
            return False
        return validators.user_key(user.name) == self.guest if user.guest else user.id == self.user


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationConfig:
    """An application as the node knows it. A rate of 0 means no limit."""

    id: int
    name: str
    title: str
    enabled: bool
    protocols: tuple[str, ...]
    entry: str
    group: int | None
    rooms_on_demand: bool
    rooms_stay: bool
    max_users: int | None
    max_rooms: int | None
    max_connections_per_address: int
    logins_per_minute: int
    max_message_bytes: int | None
    request_rate: int
    request_burst: int
    history: str
    history_size: int
    history_ttl: int
    leave_grace: int
    extension: str
    extension_settings: dict[str, Any]
    bans: tuple[RestrictedUser, ...]
    mutes: tuple[RestrictedUser, ...]

    def allows_protocol(self, protocol: str) -> bool:
        """Whether the application is enabled and accepts clients with a protocol."""
        return self.enabled and (not self.protocols or protocol in self.protocols)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomConfig:
    """A room as the node knows it.

    Where ``request_rate`` is None, the limit of the connection applies.
    """

    id: int
    application: ApplicationConfig
    name: str
    title: str
    mode: Mode
    owner_id: str
    owner_name: str
    owner_guest: bool
    max_members: int | None
    password: str
    listed: bool
    persistent: bool
    closes_with_owner: bool
    history: str
    history_size: int
    history_ttl: int
    leave_grace: int
    request_rate: int | None
    request_burst: int
    extension: str
    extension_settings: dict[str, Any]
    bans: tuple[RestrictedUser, ...]
    mutes: tuple[RestrictedUser, ...]

    def info(self, members: int) -> RoomInfo:
        """The room as a room list describes it."""
        return RoomInfo(
            name=self.name,
            title=self.title,
            members=members,
            max_members=self.max_members,
            mode=self.mode,
        )

    def is_owner(self, user: User) -> bool:
        return bool(self.owner_id) and (self.owner_id, self.owner_guest) == (user.id, user.guest)


def room_group(room: int) -> str:
    """Return the key of a room on the channel layer and in presence.

    It contains the primary key: short, ASCII, and different for a later room of the same name.
    """
    return f"room.{room}"
