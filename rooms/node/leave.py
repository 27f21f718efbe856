"""Being out of a room, for whatever reason: left, put out, closed, or the socket is gone.

What can be done at once is done at once; what a backend has to answer to is tried until it does.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from rooms.extensions import LeaveEvent
from rooms.extensions.contexts import NO_CLAIMS
from rooms.extensions.runner import ExtensionRunner
from rooms.hub.connection import Connection
from rooms.hub.connection import Membership as Place
from rooms.node import config
from rooms.node.context import NodeContext
from rooms.node.presence_events import PresenceEvents
from rooms.node.registry import Room
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.presence.base import Arrival, Departure, GroupClosed
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import Removed
from rooms.protocol.native import Native
from rooms.protocol.types import LeftReason, RemovedReason, User

logger = logging.getLogger("rooms.node")


class PendingLeave(NamedTuple):
    """Somebody's connection that was in a room, and still counts there."""

    connection: Connection
    place: Place
    user: User


class LeaveHandler:
    def __init__(self, parts: NodeContext, management: RoomLifecycle) -> None:
        self._parts = parts
        self._management = management
        self.comings = PresenceEvents(parts)
        # Of each group the connections of this process that fade, by their ids.
        self._fading: dict[str, dict[str, PendingLeave]] = {}

    async def put_out(
        self,
        connection: Connection,
        place: Place,
        user: User,
        reason: LeftReason,
        *,
        removed: RemovedReason,
        message: str = "",
    ) -> None:
        """Take a connection out of a room and tell it why."""
        self.discard(connection, place)
        _tell_removed(connection, Removed(room=place.room, reason=removed, message=message or UNSET))
        if not place.listens_only:
            await self._parts.run_to_completion(partial(self.depart, connection, place, user, reason))

    async def dissolve(self, room: Room, message: str, *, renamed: str | UnsetType = UNSET) -> None:
        """The room is no more under this name: everybody in it here is told so and is out."""
        places = [
            (connection, place)
            for connection in self._parts.hub.members(room.group)
            if (place := connection.memberships.get(room.name)) and place.group == room.group
        ]
        for connection, place in places:
            self.discard(connection, place)
        # One who is still on the way in finds the room gone, and is taken out by that.
        leaving = [
            PendingLeave(each, place, each.user) for each, place in places if each.user and place.inside
        ]
        if renamed is UNSET:
            leaving += self._fading.pop(room.group, {}).values()
        else:
            # Before they hear the new name, under which they may come back to the same group.
            await self._parts.run_to_completion(partial(self._take_out, room, leaving))
        for connection, _ in places:
            _tell_removed(
                connection, Removed(room=room.name, reason="closed", message=message, renamed=renamed)
            )
        if renamed is UNSET:
            await self._parts.run_to_completion(partial(self._take_out, room, leaving))

    async def _take_out(self, room: Room, leaving: Sequence[PendingLeave]) -> None:
        """Out of a room that is no more. Of a user with connections in several processes the last one tells
        the extensions."""
        connections = {
            each.connection.id: each.user for each in leaving if not _came_back(each.connection, each.place)
        }
        claims = {each.user.id: each.connection.claims for each in leaving}
        for user in await self._parts.presence.remove_all(room.group, connections):
            self.tell_extensions(room, user, "closed", claims[user.id])

    def disconnected(self, connection: Connection) -> None:
        """The socket is gone. What can be done at once is done at once; presence fades."""
        user, connection.user = connection.user, None
        for place in list(connection.memberships.values()):
            self.discard(connection, place)
            if user is not None and not place.listens_only:
                self._fade(connection, place, user)

    def discard(self, connection: Connection, place: Place) -> None:
        connection.memberships.pop(place.room, None)
        group = place.group
        self._parts.hub.group_discard(group, connection)
        if group not in self._parts.hub:
            wanted = partial(self._parts.hub.__contains__, group)
            self._parts.tasks.spawn(self._parts.bus.unsubscribe(group, wanted))

    def _fade(self, connection: Connection, place: Place, user: User) -> None:
        """The connection counts as a member for the room's grace period."""
        presence = self._parts.presence
        room = self._parts.directory.known_room(connection.application, place.room)
        seconds = room.record.leave_grace if room else self._parts.settings.leave_grace
        if not (seconds and (connection.protocol.options.resumable or _is_waited_for(room, user))):
            leaves = partial(self.depart, connection, place, user, "dropped")
            self._parts.tasks.spawn(self._parts.departures.attempt(leaves))
            return
        self._wait(seconds, PendingLeave(connection, place, user))
        start_grace = partial(presence.start_grace, place.group, connection.id, user)
        self._parts.tasks.spawn(self._parts.departures.attempt(start_grace))

    def _wait(self, seconds: float, leaving: PendingLeave) -> None:
        connection, place, user = leaving
        self._fading.setdefault(place.group, {})[connection.id] = leaving
        self._parts.departures.add(seconds, partial(self.depart, connection, place, user, "dropped"))

    async def depart(self, connection: Connection, place: Place, user: User, reason: LeftReason) -> None:
        """Take a connection out of a room's presence; with a user's last one the room hears of it."""
        if _came_back(connection, place):
            self._faded(place.group, connection)
            return
        directory = self._parts.directory
        live = directory.known_application(connection.application)
        # Before the user is taken out: if the database does not answer, all of this is tried again.
        room = directory.room_by_group(place.group)
        if room is None and live is not None:
            room = await directory.find_room(live, place.room)
        async with self._parts.places.of((place.group, user.id)):
            out = await self._remove(connection, place, user)
            if out and room is not None and room.group == place.group:
                self.gone(room, user, reason, claims=connection.claims)
        self._faded(place.group, connection)

    async def _remove(self, connection: Connection, place: Place, user: User) -> bool:
        """Whether the user is out of the room with this connection, which has not come in again."""
        if _came_back(connection, place):
            return False
        return await self._parts.presence.remove(place.group, connection.id, user)

    def _faded(self, group: str, connection: Connection) -> None:
        fading = self._fading.get(group, {})
        fading.pop(connection.id, None)
        if not fading:
            self._fading.pop(group, None)

    async def beat(self) -> None:
        """Renew what this process says about presence, and see to those whom dead processes left behind, and
        to those of whom what was told may not be so."""
        for found in await self._parts.presence.heartbeat():
            self._parts.tasks.spawn(self._parts.departures.in_turn(partial(self._tell_of, found)))
        await self.comings.look()

    async def node_died(self, node: str) -> None:
        """What that process said holds for a grace period; whoever is not back by then is out."""
        presence, seconds = self._parts.presence, self._parts.settings.leave_grace
        await self._parts.departures.attempt(partial(presence.expire_node, node, seconds))

    async def hand_over(self) -> None:
        """This process ends: those who fade here are left to the others. Waits for what is under way."""
        await self._bury_this()
        # The server may not have patience for that; and a beat that is under way takes it back.
        await self._parts.tasks.settle()
        await self._bury_this()

    async def _bury_this(self) -> None:
        presence = self._parts.presence
        try:
            await presence.expire_node(presence.node, self._parts.settings.leave_grace)
        except RoomsError as error:
            logger.warning("Those who are here now are gone with this process's lease: %s", error.message)

    async def _tell_of(self, found: Departure | Arrival) -> None:
        parts, user = self._parts, found.user
        room = parts.directory.room_by_group(found.group)
        if room is None:
            place = await parts.pool.run(config.place_of, found.group)
            application = await parts.directory.application(place[0]) if place else None
            room = await parts.directory.find_room(application, place[1]) if application and place else None
        if room is None:
            return
        async with parts.places.of((room.group, user.id)):
            # Since it was found, they may have come back, or gone: what is told last has to be so.
            here = (await parts.presence.find(room.group, [user.name])).get(user.name)
            inside = here is not None and here.id == user.id
            if isinstance(found, Arrival) and inside:
                self.comings.returned(room, user)
            elif isinstance(found, Departure) and not inside and not await self._kept(room, user):
                self.gone(room, user, "dropped")

    async def _kept(self, room: Room, user: User) -> bool:
        """Where the room's grace period is longer than the one after which the others were taken out, a user
        counts for the rest of it, as with a connection of this process that fades."""
        seconds = room.record.leave_grace - self._parts.settings.leave_grace
        if seconds <= 0:
            return False
        connection = Connection(uuid.uuid4().hex, Native(), application=room.application.record.name)
        place = Place(room=room.name, group=room.group, listens_only=False)
        # First: however the rest ends, it is cleaned up.
        self._wait(seconds, PendingLeave(connection, place, user))
        presence = self._parts.presence
        try:
            await presence.add(room.group, connection.id, user)
        except GroupClosed:
            return False
        start_grace = partial(presence.start_grace, room.group, connection.id, user)
        self._parts.tasks.spawn(self._parts.departures.attempt(start_grace))
        return True

    async def undo(self, connection: Connection, room: Room, place: Place, user: User) -> None:
        """A user who had been let in could not stay; the room hears of it if it heard of the coming."""
        async with self._parts.places.of((place.group, user.id)):
            if not await self._remove(connection, place, user):
                self.comings.failed(room, user)
            elif not room.gone:
                self.gone(room, user, "left", claims=connection.claims)
            elif place.announced:
                self.tell_extensions(room, user, "closed", connection.claims)

    def gone(
        self, room: Room, user: User, reason: LeftReason, *, claims: Mapping[str, str] = NO_CLAIMS
    ) -> None:
        """A user is out of a room: tell its members and its extensions, remove it if it is empty."""
        self.comings.left(room, user, reason)
        self.tell_extensions(room, user, reason, claims)
        if room.record.closes_with_owner and room.record.is_owner(user):
            remove = partial(self._management.remove, room)
            self._parts.tasks.spawn(self._parts.departures.in_turn(remove))
        elif not room.record.persistent:
            remove = partial(self._management.remove_if_empty, room)
            self._parts.tasks.spawn(self._parts.departures.in_turn(remove))

    def tell_extensions(
        self,
        room: Room,
        user: User,
        reason: LeftReason,
        claims: Mapping[str, str],
        levels: Sequence[ExtensionRunner] | None = None,
    ) -> None:
        """Tell the room's extension and its application's, or those ``levels``, that a user is out."""
        event = LeaveEvent(room.context, user, reason, claims=claims)
        for hooks in room.levels if levels is None else levels:
            if hooks.handles("on_leave"):
                self._parts.tasks.spawn(hooks.notify("on_leave", event, executor=room.hooks.executor))


def _tell_removed(connection: Connection, event: Removed) -> None:
    connection.notify(event)
    if connection.protocol.options.disconnect_on_removal:
        connection.close(
            CloseCode.NORMAL,
            event.message if event.message is not UNSET else "You are not in the room any more.",
        )


def _is_waited_for(room: Room | None, user: User) -> bool:
    """A room that closes with its owner waits for them, whether or not they can come back."""
    return room is not None and room.record.closes_with_owner and room.record.is_owner(user)


def _came_back(connection: Connection, place: Place) -> bool:
    """It came in again before its departure could be carried out."""
    now = connection.memberships.get(place.room)
    return now is not None and now is not place and now.group == place.group and not now.listens_only
