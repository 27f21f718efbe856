"""Who may do what. Pure decisions over records: every rule of the house on one screen.

A function returns when the answer is yes and raises the error that a client gets when it is no.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.hashers import check_password

from rooms.hub.config import ApplicationConfig, RestrictedUser, RoomConfig
from rooms.protocol.errors import BadPassword, Banned, LoginRefused, Muted, NotSender, PermissionDenied
from rooms.protocol.results import RoomDetails, You
from rooms.protocol.types import User


def check_entry(application: ApplicationConfig, user: User, groups: frozenset[int]) -> None:
    """May this user be in the application at all?"""
    if application.entry != "anyone" and user.guest:
        raise LoginRefused("Only signed-in users may enter here.")
    if application.entry == "group" and application.group not in groups:
        raise LoginRefused("Only members of a certain group may enter here.")
    _check(application.bans, (user,), Banned, BANNED)


def check_join(room: RoomConfig, people: Iterable[User], *, moderator: bool) -> None:
    """May these, one client under each of their names, come into the room? The password is asked
    separately, because that is slow."""
    if not moderator:
        _check(room.bans, people, Banned, banned_from(room))


def needs_password(room: RoomConfig, user: User, *, moderator: bool) -> bool:
    return bool(room.password) and not moderator and not room.is_owner(user)


def check_room_password(room: RoomConfig, password: str | None) -> None:
    """Slow on purpose: to be called in a thread."""
    if password is None or not check_password(password, room.password):
        raise BadPassword(f"Room {room.name} needs its password.")


def check_send(room: RoomConfig, user: User, people: Iterable[User]) -> None:
    """May this member, who is known by the names of ``people``, speak?"""
    if room.mode == "broadcast" and not room.is_owner(user):
        raise NotSender(f"Only its owner speaks in {room.name}.")
    if room.mutes or room.application.mutes:
        _check((*room.application.mutes, *room.mutes), people, Muted, "You are muted here")


def check_voice(application: ApplicationConfig, people: Iterable[User]) -> None:
    """May they speak in the application at all?"""
    _check(application.mutes, people, Muted, "You are muted here")


def check_create(application: ApplicationConfig) -> None:
    if not application.rooms_on_demand:
        raise PermissionDenied("Rooms are made by the staff here.")


def check_moderate(room: RoomConfig, user: User, *, moderator: bool) -> None:
    if not may_moderate(room, user, moderator=moderator):
        raise PermissionDenied(f"Only the owner of {room.name} and moderators may do that.")


def may_moderate(room: RoomConfig, user: User, *, moderator: bool) -> bool:
    return moderator or room.is_owner(user)


def details(room: RoomConfig, user: User, *, moderator: bool, listens_only: bool = False) -> RoomDetails:
    """The room as this user sees it."""
    return RoomDetails(
        name=room.name,
        title=room.title,
        mode=room.mode,
        owner=room.owner_name or None,
        max_members=room.max_members,
        you=You(
            send=not listens_only and (room.mode == "open" or room.is_owner(user)),
            moderate=may_moderate(room, user, moderator=moderator),
        ),
    )


BANNED = "You are banned here"


def banned_from(room: RoomConfig) -> str:
    return f"You are banned from {room.name}"


def restriction(restrictions: Iterable[RestrictedUser], people: Iterable[User], what: str) -> str | None:
    """The sentence that tells of the restriction that concerns one of these, if one does."""
    for each in restrictions:
        if any(each.concerns(user) for user in people):
            until = f" until {each.until:%Y-%m-%d %H:%M} UTC" if each.until else ""
            reason = f": {each.reason}" if each.reason else ""
            return f"{what}{until}{reason}."
    return None


def _check(
    restrictions: Iterable[RestrictedUser],
    people: Iterable[User],
    error: type[Banned] | type[Muted],
    what: str,
) -> None:
    if (sentence := restriction(restrictions, people, what)) is not None:
        raise error(sentence)
