"""What extensions say to coming in and going out: the room's before its application's."""

from __future__ import annotations

import asyncio

from rooms.extensions import JoinEvent, LeaveEvent
from rooms.extensions.runner import ExtensionRunner
from rooms.hub.connection import Connection, Membership
from rooms.node.context import NodeContext
from rooms.node.leave import LeaveHandler
from rooms.node.registry import Room
from rooms.protocol.errors import NotMember, RoomFull
from rooms.protocol.types import User


def asked(room: Room) -> bool:
    """Whether anybody is asked about those who come."""
    return any(hooks.handles("on_join") for hooks in room.levels)


async def to_enter(
    parts: NodeContext,
    departing: LeaveHandler,
    connection: Connection,
    room: Room,
    user: User,
    *,
    listens: bool,
) -> bool:
    """Have ``on_join`` called for a user who is not in the room yet; True when one was. Raises what it
    raises, RoomFull where it would be asked for nothing, Unavailable where one has not begun."""
    for hooks in room.levels:
        hooks.ensure_ready()
    levels = [hooks for hooks in room.levels if hooks.handles("on_join")]
    if not levels:
        return False
    # Whoever is just going out has gone first, also for the extensions.
    async with parts.places.of((room.group, user.id)):
        here = (await parts.presence.find(room.group, [user.name])).get(user.name)
    if here is not None and here.id == user.id:
        return False
    limit = None if listens else room.record.max_members
    if limit is not None and (await parts.presence.counts([room.group]))[0] >= limit:
        raise full(room)
    event = JoinEvent(room.context, user, connection.id, claims=connection.claims, subscriber=listens)
    agreed: list[ExtensionRunner] = []
    try:
        for hooks in levels:
            hooks.ensure_ready()
            await hooks.call("on_join", event, executor=room.hooks.executor)
            agreed.append(hooks)
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            # Nobody waits any more, but it may well say yes.
            agreed.append(hooks)
        if not listens:
            # Whoever said yes hears that nobody came of it.
            departing.tell_extensions(room, user, "left", connection.claims, levels=agreed)
        raise
    return True


async def to_leave(parts: NodeContext, connection: Connection, place: Membership, user: User) -> None:
    """Extensions may refuse to let somebody go who asks. Raises what ``on_before_leave`` raises."""
    room = parts.directory.room_by_group(place.group)
    if room is None:
        return
    event = LeaveEvent(room.context, user, "left", claims=connection.claims)
    for hooks in room.levels:
        if hooks.handles("on_before_leave"):
            connection.hold()
            try:
                await hooks.call("on_before_leave", event, executor=room.hooks.executor)
            finally:
                connection.release()
    if connection.memberships.get(place.room) is not place:
        raise NotMember(f"You are not in {place.room} any more.")


def full(room: Room) -> RoomFull:
    limit = room.record.max_members
    return RoomFull(f"Room {room.name} is full ({limit} of {limit}).", retry=True)
