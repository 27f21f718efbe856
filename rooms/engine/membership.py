"""Coming into rooms and going out of them: join, leave, subscribe, disconnect.

A join: policy and handlers → the bus (first local member) → the connection's pushes are held back →
the hub → history, state and members → the reply → what was held. Live messages queue behind the
reply: nothing overtakes it, nothing is missed, and numbers remove doubles.
"""

from __future__ import annotations

import logging
from functools import partial

from msgspec import UNSET

from rooms import policy
from rooms.engine.directory import LiveRoom
from rooms.engine.management import Management
from rooms.engine.parts import Parts, quietly, user_of
from rooms.errors import NotMember, RoomFull, TooManyRooms
from rooms.events import (
    Join,
    JoinData,
    Joined,
    Leave,
    Left,
    LeftReason,
    Removed,
    RemovedReason,
    Reply,
    Subscribe,
    Unsubscribe,
    User,
)
from rooms.extensions import JoinEvent, LeaveEvent
from rooms.fanout import Connection
from rooms.fanout import Membership as Place
from rooms.histories import Snapshot
from rooms.presence.base import GroupFull

logger = logging.getLogger("rooms.engine")


class Membership:
    def __init__(self, parts: Parts, management: Management) -> None:
        self._parts = parts
        self._management = management

    async def join(self, connection: Connection, request: Join) -> None:
        await self._enter(connection, request, listens_only=False)

    async def subscribe(self, connection: Connection, request: Subscribe) -> None:
        await self._enter(connection, request, listens_only=True)

    async def leave(self, connection: Connection, request: Leave) -> None:
        await self._leave(connection, request, listens_only=False)

    async def unsubscribe(self, connection: Connection, request: Unsubscribe) -> None:
        await self._leave(connection, request, listens_only=True)

    async def leave_all(self, connection: Connection) -> None:
        """Out of every room, as somebody who logs out."""
        user = user_of(connection)
        for place in list(connection.memberships.values()):
            await self.put_out(connection, place, user, "left", removed="logged_out")

    async def put_out(
        self,
        connection: Connection,
        place: Place,
        user: User,
        reason: LeftReason,
        *,
        removed: RemovedReason | None = None,
        message: str = "",
    ) -> None:
        """Take a connection out of a room, and tell it so where ``removed`` says why."""
        self._discard(connection, place)
        if removed is not None:
            connection.notify(Removed(room=place.room, reason=removed, message=message or UNSET))
        if not place.listens_only:
            await quietly(self._depart(connection.application, place, connection.id, user, reason))

    async def dissolve(self, room: LiveRoom, message: str) -> None:
        """The room is no more: everybody in it here is told so and is out."""
        users: dict[str, User] = {}
        for connection in self._parts.hub.members(room.group):
            place = connection.memberships.get(room.name)
            if place is None:
                continue
            self._discard(connection, place)
            connection.notify(Removed(room=room.name, reason="closed", message=message))
            if connection.user is not None and not place.listens_only:
                users[connection.user.id] = connection.user
        for user in users.values():
            self._tell_extensions(room, user, "closed")
        await self._parts.presence.clear(room.group)

    def disconnected(self, connection: Connection) -> None:
        """The socket is gone. What can be done at once is done at once; presence fades."""
        user, connection.user = connection.user, None
        for place in list(connection.memberships.values()):
            self._discard(connection, place)
            if user is not None and not place.listens_only:
                self._parts.tasks.spawn(self._fade(connection, place, user))

    # Coming in ---------------------------------------------------------------------------------------

    async def _enter(self, connection: Connection, request: Join | Subscribe, *, listens_only: bool) -> None:
        user = user_of(connection)
        known = connection.memberships.get(request.room)
        if known is None and len(connection.memberships) >= self._parts.settings.max_rooms_per_connection:
            raise TooManyRooms(
                f"A connection is in at most {self._parts.settings.max_rooms_per_connection} rooms."
            )
        connection.hold()
        try:
            room, first = await self._admit(connection, request, user, listens_only=listens_only)
            try:
                await self._answer(connection, request, room, user)
            except BaseException:
                if known is None:
                    self._undo(connection, room, user)
                raise
        finally:
            connection.release()
        if first:
            self._tell(room, Joined(room=room.name, user=user), exclude=connection)

    async def _admit(
        self, connection: Connection, request: Join | Subscribe, user: User, *, listens_only: bool
    ) -> tuple[LiveRoom, bool]:
        """Let the connection in; also whether its user was not in the room before."""
        while True:
            room = await self._management.room_to_enter(connection, request.room, user)
            async with room.admission:
                if room.gone:
                    # The last one went out while we were on our way in: there is a new room to find.
                    continue
                return room, await self._admit_to(connection, request, room, user, listens_only)

    async def _admit_to(
        self,
        connection: Connection,
        request: Join | Subscribe,
        room: LiveRoom,
        user: User,
        listens_only: bool,
    ) -> bool:
        known = connection.memberships.get(room.name)
        if known is not None and (listens_only or not known.listens_only):
            return False
        await self._check(connection, request, room, user)
        place = Place(room=room.name, room_id=room.record.id, group=room.group, listens_only=listens_only)
        # Noted first: however this ends, the end of the connection finds it and cleans up.
        connection.memberships[room.name] = place
        first = False
        try:
            if not listens_only:
                first = await self._add_to_presence(connection, room, user)
            await self._parts.bus.subscribe(room.group)
        except BaseException:
            self._undo(connection, room, user)
            if known is not None:
                # A listener who may not become a member goes on listening.
                self._parts.hub.group_add(room.group, connection)
                connection.memberships[room.name] = known
            raise
        self._parts.hub.group_add(room.group, connection)
        return first

    async def _check(
        self, connection: Connection, request: Join | Subscribe, room: LiveRoom, user: User
    ) -> None:
        policy.check_join(room.record, user, moderator=connection.moderator)
        if policy.needs_password(room.record, user, moderator=connection.moderator):
            await self._parts.pool.run(policy.check_room_password, room.record, request.password)

    async def _add_to_presence(self, connection: Connection, room: LiveRoom, user: User) -> bool:
        limit = room.record.max_members
        try:
            first = await self._parts.presence.add(room.group, connection.id, user, limit=limit)
        except GroupFull:
            raise RoomFull(f"Room {room.name} is full ({limit} of {limit}).", retry=True) from None
        if first:
            event = JoinEvent(room.context, user, connection.id)
            for hooks in (room.hooks, room.application.hooks):
                await hooks.call("on_join", event, lane=room.hooks.lane)
        return first

    async def _answer(
        self, connection: Connection, request: Join | Subscribe, room: LiveRoom, user: User
    ) -> None:
        parts, record = self._parts, room.record
        limit = parts.settings.join_limit if request.limit is None else request.limit
        limit = min(limit, parts.settings.recovery_limit)
        past: Snapshot = await parts.histories[record.history].snapshot(record, request.since, limit)
        place = connection.memberships[room.name]
        page = await parts.presence.members(room.group, limit=parts.settings.join_members)
        members = page.users
        if not place.listens_only and user not in members:
            # A list cut short still shows the joiner.
            members = [*members[:-1], user]
        data = JoinData(
            room=policy.details(
                record, user, moderator=connection.moderator, listens_only=place.listens_only
            ),
            members=members,
            count=page.count,
            state=past.state,
            messages=past.messages,
            recovered=past.recovered,
            position=past.position,
        )
        position = past.position.seq if past.position else 0
        parts.hub.start(room.group, position)
        connection.send(Reply(id=request.id, data=data))
        parts.hub.settle(room.group, connection, position)

    def _undo(self, connection: Connection, room: LiveRoom, user: User) -> None:
        place = connection.memberships.get(room.name)
        if place is not None:
            self._discard(connection, place)
            if not place.listens_only:
                presence = self._parts.presence
                self._parts.tasks.spawn(quietly(presence.remove(room.group, connection.id, user)))

    # Going out ---------------------------------------------------------------------------------------

    async def _leave(
        self, connection: Connection, request: Leave | Unsubscribe, *, listens_only: bool
    ) -> None:
        user = user_of(connection)
        place = connection.memberships.get(request.room)
        if place is None or place.listens_only is not listens_only:
            raise NotMember(f"You are not in {request.room}.")
        self._discard(connection, place)
        connection.send(Reply(id=request.id, data={}))
        if not listens_only:
            await quietly(self._depart(connection.application, place, connection.id, user, "left"))

    def _discard(self, connection: Connection, place: Place) -> None:
        connection.memberships.pop(place.room, None)
        group = place.group
        if self._parts.hub.group_discard(group, connection):
            wanted = partial(self._parts.hub.__contains__, group)
            self._parts.tasks.spawn(self._parts.bus.unsubscribe(group, wanted))

    async def _fade(self, connection: Connection, place: Place, user: User) -> None:
        application, id = connection.application, connection.id
        live = await self._parts.directory.application(application)
        room = await self._parts.directory.find_room(live, place.room) if live else None
        if room is None or room.record.id != place.room_id:
            return
        await quietly(self._parts.presence.fade(place.group, id, user))
        self._parts.departures.add(
            room.record.grace_seconds, partial(self._depart, application, place, id, user, "dropped")
        )

    async def _depart(
        self, application: str, place: Place, connection: str, user: User, reason: LeftReason
    ) -> None:
        """Take a connection out of a room's presence; with a user's last one the room hears of it."""
        if not await self._parts.presence.remove(place.group, connection, user):
            return
        live = await self._parts.directory.application(application)
        room = await self._parts.directory.find_room(live, place.room) if live else None
        if room is not None and room.record.id == place.room_id:
            await self.gone(room, user, reason)

    async def gone(self, room: LiveRoom, user: User, reason: LeftReason) -> None:
        """A user is out of a room: tell its members and its extensions, remove it if it is empty."""
        self._tell(room, Left(room=room.name, user=user, reason=reason))
        self._tell_extensions(room, user, reason)
        if not room.record.persistent:
            await self._management.remove_if_empty(room)

    def _tell_extensions(self, room: LiveRoom, user: User, reason: LeftReason) -> None:
        event = LeaveEvent(room.context, user, reason)
        for hooks in (room.hooks, room.application.hooks):
            if hooks.has("on_leave"):
                self._parts.tasks.spawn(hooks.tell("on_leave", event, lane=room.hooks.lane))

    def _tell(self, room: LiveRoom, event: Joined | Left, exclude: Connection | None = None) -> None:
        self._parts.hub.group_send(room.group, event, exclude=exclude)
        self._parts.bus.publish(room.group, event)
