"""Coming into rooms and leaving them: join, subscribe, leave, unsubscribe.

A join: policy and handlers → the bus (first local member) → the connection's pushes are held back →
the hub → history, state and members → the reply → what was held. Live messages queue behind the
reply: nothing overtakes it, nothing is missed, and numbers remove doubles.
"""

from __future__ import annotations

import asyncio
from functools import partial

from rooms.hub.connection import Connection
from rooms.hub.connection import Membership as Place
from rooms.node import join_hooks, permissions, snapshot
from rooms.node.context import NodeContext, membership_in, user_of
from rooms.node.leave import LeaveHandler
from rooms.node.registry import Room
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.presence.base import GroupClosed, GroupFull
from rooms.protocol.commands import Join, Leave, Subscribe, Unsubscribe
from rooms.protocol.compat_commands import CompatJoin, CompatSubscribe, LeaveAll
from rooms.protocol.errors import AlreadyMember, NotMember, RoomClosed, RoomsError, TooManyRooms, Unavailable
from rooms.protocol.events import Rejoined, Reply
from rooms.protocol.results import JoinData
from rooms.protocol.types import Position, User

# So long one waits for those who came before, who are held up by extensions or by a backend.
ADMISSION_SECONDS = 30
# A room that is just being removed is looked for again after so many seconds each time.
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2)


class Membership:
    def __init__(self, parts: NodeContext, management: RoomLifecycle, departing: LeaveHandler) -> None:
        self._parts = parts
        self._management = management
        self._departing = departing
        self._comings = departing.comings

    async def join(self, connection: Connection, request: Join) -> None:
        await self._enter(connection, request, listens_only=False)

    async def subscribe(self, connection: Connection, request: Subscribe) -> None:
        await self._enter(connection, request, listens_only=True)

    async def leave(self, connection: Connection, request: Leave) -> None:
        await self._leave(connection, request, listens_only=False)

    async def unsubscribe(self, connection: Connection, request: Unsubscribe) -> None:
        await self._leave(connection, request, listens_only=True)

    async def leave_every(self, connection: Connection, request: LeaveAll) -> None:
        """Out of every room, as somebody who leaves each."""
        user = user_of(connection)
        refusal: RoomsError | None = None
        for place in list(connection.memberships.values()):
            if not place.listens_only:
                try:
                    await join_hooks.to_leave(self._parts, connection, place, user)
                except RoomsError as error:
                    refusal = error
                    continue
            # One by one, so that whatever ends this leaves the others to the end of the connection.
            self._departing.discard(connection, place)
            if not place.listens_only:
                await self._parts.run_to_completion(
                    partial(self._departing.depart, connection, place, user, "left")
                )
        if refusal is not None:
            raise refusal
        connection.send(Reply(id=request.id, data={}))

    async def log_out(self, connection: Connection) -> None:
        """Out of every room, as somebody who logs out."""
        user = user_of(connection)
        for place in list(connection.memberships.values()):
            await self._departing.put_out(connection, place, user, "left", removed="logged_out")

    # Coming in ---------------------------------------------------------------------------------------

    async def _enter(self, connection: Connection, request: Join | Subscribe, *, listens_only: bool) -> None:
        user = user_of(connection)
        most = self._parts.settings.max_rooms_per_connection
        if request.room not in connection.memberships and len(connection.memberships) >= most:
            raise TooManyRooms(f"A connection is in at most {most} rooms.")
        connection.hold()
        try:
            room, place, before = await self._admit(connection, request, user, listens_only=listens_only)
            if (
                place is before
                and isinstance(request, CompatJoin | CompatSubscribe)
                and request.if_member == "refuse"
            ):
                raise AlreadyMember(f"You are in {room.name} already.")
            try:
                await self._answer(connection, request, room, place, user)
                if place is before and isinstance(request, CompatJoin) and request.if_member == "announce":
                    self._comings.tell(room, Rejoined(room=room.name, user=user), exclude=connection)
            except BaseException:
                if place is not before:
                    self._restore(connection, room, place, before, user)
                raise
        finally:
            connection.release()

    async def _admit(
        self, connection: Connection, request: Join | Subscribe, user: User, *, listens_only: bool
    ) -> tuple[Room, Place, Place | None]:
        """Let the connection in. The room, its place there, and the place it had before: the same
        one where it was in already."""
        for pause in PAUSES:
            room = await self._management.room_to_enter(connection, request, user)
            before = membership_in(connection, room)
            if before is not None and (listens_only or not before.listens_only):
                return room, before, before
            password = room.record.password
            await self._check_password(connection, request, room, user)
            async with _Admission(room):
                # The last one went out, or the password changed, while we were on our way in.
                if room.gone or room.record.password != password:
                    continue
                place = Place(room=room.name, group=room.group, listens_only=listens_only)
                before = membership_in(connection, room)
                # Noted first: however this ends, the end of the connection finds it and cleans up.
                connection.memberships[room.name] = place
                try:
                    newest = await self._come_in(connection, room, place, user)
                except GroupClosed:
                    # It is being removed, here or by another process: soon there is a new one to find.
                    self._parts.directory.remove_room(room)
                    self._restore(connection, room, place, None, user)
                    await self._departing.dissolve(room, "The room was closed.")
                    await asyncio.sleep(pause)
                    continue
                except BaseException:
                    self._restore(connection, room, place, before, user)
                    raise
                self._parts.hub.group_add(room.group, connection)
                if newest is not None:
                    self._parts.hub.start(room.group, newest)
                if not listens_only:
                    place.inside = True
                    self._comings.settled(room, user, connection)
            return room, place, before
        raise Unavailable(f"Room {request.room} is being removed; try again in a moment.")

    async def _check_password(
        self, connection: Connection, request: Join | Subscribe, room: Room, user: User
    ) -> None:
        permissions.check_join(room.record, connection.people, moderator=connection.moderator)
        if permissions.needs_password(room.record, user, moderator=connection.moderator):
            # Slow on purpose, and so neither under a lock nor in the threads that everybody needs.
            await self._parts.passwords.run(permissions.check_room_password, room.record, request.password)

    async def _come_in(self, connection: Connection, room: Room, place: Place, user: User) -> Position | None:
        """Handlers, presence, bus. The position from which on the hub tells the room's events, if that is
        to be settled now."""
        while True:
            announced = await join_hooks.to_enter(
                self._parts, self._departing, connection, room, user, listens=place.listens_only
            )
            if place.listens_only:
                break
            place.announced = announced
            if await self._take_place(connection, room, place, user):
                break
        await self._parts.bus.subscribe(room.group)
        newest = await snapshot.newest(self._parts, room, connection.protocol)
        # Again, because the last one who was in may have gone while we waited.
        await self._parts.bus.subscribe(room.group)
        # Again, because a ban may have come while we waited.
        permissions.check_join(room.record, connection.people, moderator=connection.moderator)
        if room.gone:
            raise GroupClosed
        if membership_in(connection, room) is not place:
            raise RoomClosed(f"You are not in {room.name} any more.")
        return newest

    async def _take_place(self, connection: Connection, room: Room, place: Place, user: User) -> bool:
        """Whether that is right: who was not asked about, being in already, has not come as the first."""
        presence = self._parts.presence
        async with self._parts.places.of((room.group, user.id)):
            try:
                first = await presence.add(room.group, connection.id, user, limit=room.record.max_members)
            except BaseException as error:
                if place.announced:
                    place.announced = False
                    self._departing.tell_extensions(room, user, "left", connection.claims)
                if isinstance(error, GroupFull):
                    raise join_hooks.full(room) from None
                raise
            if first:
                self._comings.came(room, user)
            if first and not place.announced and join_hooks.asked(room):
                # They went out since they were looked for.
                await presence.remove(room.group, connection.id, user)
                return False
        return True

    async def _answer(
        self, connection: Connection, request: Join | Subscribe, room: Room, place: Place, user: User
    ) -> None:
        parts, record = self._parts, room.record
        past = await snapshot.join_snapshot(parts, room, connection.protocol, request)
        most = None if connection.protocol.options.full_member_list else parts.settings.join_members_limit
        page = await parts.presence.members(room.group, limit=most)
        if membership_in(connection, room) is not place:
            raise RoomClosed(f"Room {room.name} was closed.")
        members = page.users
        if not place.listens_only and user not in members:
            # A list cut short still shows the joiner.
            members = [*members[:-1], user]
        data = JoinData(
            room=permissions.details(
                record, user, moderator=connection.moderator, listens_only=place.listens_only
            ),
            members=members,
            count=page.count,
            state=past.state if past else [],
            messages=past.messages if past else [],
            recovered=past is not None and past.recovered,
            position=past.position if past else None,
        )
        connection.send(Reply(id=request.id, data=data))
        present = {each.id for each in members}
        parts.hub.listed(room.group, connection, present, page.count, complete=not page.more)
        if past is None:
            # It hears all that was said since it is in the group.
            connection.release()
        else:
            parts.hub.settle(room.group, connection, snapshot.number_of(past))

    def _restore(
        self, connection: Connection, room: Room, place: Place, before: Place | None, user: User
    ) -> None:
        """A join did not succeed: the connection is where it was before."""
        if connection.memberships.get(place.room) is place:
            if before is not None:
                # A listener who may not become a member goes on listening.
                connection.memberships[place.room] = before
            else:
                self._departing.discard(connection, place)
                # Of the room it has heard nothing yet: numbers would begin somewhere.
                connection.drop_held(place.group)
        if not place.listens_only:
            undo = partial(self._departing.undo, connection, room, place, user)
            self._parts.tasks.spawn(self._parts.departures.attempt(undo))

    # Going out ---------------------------------------------------------------------------------------

    async def _leave(
        self, connection: Connection, request: Leave | Unsubscribe, *, listens_only: bool
    ) -> None:
        user = user_of(connection)
        place = connection.memberships.get(request.room)
        if place is None or place.listens_only is not listens_only:
            await self._parts.check_room_exists(connection, request.room)
            raise NotMember(f"You are not in {request.room}.")
        if not listens_only:
            await join_hooks.to_leave(self._parts, connection, place, user)
        self._departing.discard(connection, place)
        connection.hold()
        try:
            # The answer means that the place is free, in every process.
            if not listens_only:
                await self._parts.run_to_completion(
                    partial(self._departing.depart, connection, place, user, "left")
                )
            connection.send(Reply(id=request.id, data={}))
        finally:
            connection.release()


class _Admission:
    """Nobody else comes in meanwhile. Raises Unavailable."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout(ADMISSION_SECONDS):
                await self._room.admission.acquire()
        except TimeoutError:
            sentence = f"Room {self._room.name} lets nobody in just now; try again in a moment."
            raise Unavailable(sentence) from None

    async def __aexit__(self, *_: object) -> None:
        self._room.admission.release()
