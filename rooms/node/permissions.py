"""Permissions: pure decisions about a config and a user, all in one place.

A check returns when the answer is yes, and raises the error that the client gets when it is no.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from django.contrib.auth.hashers import check_password

from rooms.hub.config import ApplicationConfig, RestrictedUser, RoomConfig
from rooms.protocol.errors import BadPassword, Banned, LoginRefused, Muted, NotSender, PermissionDenied
from rooms.protocol.results import RoomDetails, You
from rooms.protocol.types import User

BANNED = "You are banned here"
MUTED = "You are muted here"


class Client(Protocol):
    """A connection, as far as permissions depend on it."""

    @property
    def identities(self) -> tuple[User, ...]:
        """All users that it counts as: a ban or mute of one of them applies to it."""


def check_entry(application: ApplicationConfig, user: User, groups: frozenset[int]) -> None:
    """Check whether a user may log in to the application.

    ``groups`` are the ids of the Django groups of the user.
    """
    if application.entry != "anyone" and user.guest:
        raise LoginRefused("Only signed-in users can log in here.")
    if application.entry == "group" and application.group not in groups:
        raise LoginRefused("Only members of the group that staff chose can log in here.")
    _check(application.bans, (user,), Banned, BANNED)


def check_join(room: RoomConfig, client: Client, *, moderator: bool) -> None:
    """Check whether a client may join or subscribe.

    The password is checked separately, since that is slow.
    """
    if room.bans and not moderator:
        _check(room.bans, client.identities, Banned, banned_from(room))


def needs_password(room: RoomConfig, user: User, *, moderator: bool) -> bool:
    return bool(room.password) and not moderator and not room.is_owner(user)


def check_room_password(room: RoomConfig, password: str | None) -> None:
    """Check a room's password. Slow on purpose: call it in a thread."""
    if password is None or not check_password(password, room.password):
        raise BadPassword(f"Expected the password of room {room.name}.")


def check_send(room: RoomConfig, user: User, client: Client) -> None:
    """Check whether a client may send a message to the room."""
    if room.mode == "broadcast" and not room.is_owner(user):
        raise NotSender(f"Only the owner of {room.name} can send messages.")
    if room.mutes or room.application.mutes:
        _check((*room.application.mutes, *room.mutes), client.identities, Muted, MUTED)


def check_send_direct(application: ApplicationConfig, client: Client) -> None:
    """Check whether a client may send messages in the application at all."""
    _check(application.mutes, client.identities, Muted, MUTED)


def check_create(application: ApplicationConfig) -> None:
    if not application.rooms_on_demand:
        raise PermissionDenied("Only staff can create rooms here.")


def check_moderate(room: RoomConfig, user: User, *, moderator: bool) -> None:
    if not may_moderate(room, user, moderator=moderator):
        raise PermissionDenied(f"Only the owner of {room.name} and moderators can do that.")


def may_moderate(room: RoomConfig, user: User, *, moderator: bool) -> bool:
    return moderator or room.is_owner(user)


def details(room: RoomConfig, user: User, *, moderator: bool, subscriber: bool = False) -> RoomDetails:
    """Return the room as this user sees it."""
    return RoomDetails(
        name=room.name,
        title=room.title,
        mode=room.mode,
        owner=room.owner_name or None,
        max_members=room.max_members,
        you=You(
            send=not subscriber and (room.mode == "open" or room.is_owner(user)),
            moderate=may_moderate(room, user, moderator=moderator),
        ),
    )


def banned_from(room: RoomConfig) -> str:
    return f"You are banned from {room.name}"


def restriction(restrictions: Iterable[RestrictedUser], identities: Iterable[User], what: str) -> str | None:
    """Return the text of the ban or mute that applies to one of these users, or None."""
    for each in restrictions:
        if any(each.concerns(user) for user in identities):
            until = f" until {each.until:%Y-%m-%d %H:%M} UTC" if each.until else ""
            reason = f": {each.reason}" if each.reason else ""
            return f"{what}{until}{reason}."
    return None


def _check(
    restrictions: Iterable[RestrictedUser],
    identities: Iterable[User],
    error: type[Banned] | type[Muted],
    what: str,
) -> None:
    if (text := restriction(restrictions, identities, what)) is not None:
        raise error(text)
