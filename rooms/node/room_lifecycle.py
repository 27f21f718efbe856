"""Creates rooms, lists them, and removes them."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from django.contrib.auth.hashers import make_password
from django.utils import timezone

from rooms.concurrency.rate_limits import list_limit
from rooms.hub.application import Application
from rooms.hub.config import RoomConfig, room_group
from rooms.hub.connection import Connection
from rooms.hub.room import Room
from rooms.node import config, permissions
from rooms.node.context import NodeContext, require_user
from rooms.protocol.commands import CloseRoom, CreateRoom, Join, ListRooms, Subscribe
from rooms.protocol.compat_commands import CompatJoin, CompatSubscribe
from rooms.protocol.errors import RoomExists, RoomNotFound
from rooms.protocol.events import Reply, RoomInfo
from rooms.protocol.types import CreatePolicy, User


class RoomLifecycle:
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        # Ids of the rooms that clients of this process created and that still exist.
        self._created: set[int] = set()

    # Commands ----------------------------------------------------------------------------------------

    async def list(self, connection: Connection, command: ListRooms) -> None:
        """Reply with the listed rooms.

        From now on the connection receives changes of the list.
        """
        require_user(connection)
        context = self._context
        application = await context.application_of(connection)
        limit = list_limit(command.limit)
        connection.cork()
        try:
            # Before the list is read: a room that is created in between is sent twice rather than never.
            application.room_list.add(connection)
            rooms = await context.pool.run(
                config.list_rooms, application.config, command.prefix or "", limit + 1
            )
            counts = await context.presence.counts([room_group(pk) for pk in rooms])
            listed = [
                msgspec.structs.replace(info, members=count)
                for info, count in zip(rooms.values(), counts, strict=True)
            ]
            connection.send(Reply(id=command.id, data={"rooms": listed[:limit], "more": len(listed) > limit}))
        finally:
            connection.uncork()

    async def create(self, connection: Connection, command: CreateRoom) -> None:
        """Create a room that the user owns, and still has to join."""
        user = require_user(connection)
        context = self._context
        application = await context.application_of(connection)
        permissions.check_create(application.config)
        connection.cork()
        try:
            password = ""
            if command.password:
                password = await context.password_pool.run(make_password, command.password)
            await context.pool.run(config.create_room, application.config, command, user, password)
            room = await context.registry.room(application, command.room)
            self._created.add(room.config.id)
            details = permissions.details(room.config, user, moderator=connection.moderator)
            connection.send(Reply(id=command.id, data={"room": details}))
        finally:
            connection.uncork()

    async def close(self, connection: Connection, command: CloseRoom) -> None:
        """Delete a room on command of its owner or a moderator.

        The members are notified as for every deleted row (``invalidation.py``).
        """
        user = require_user(connection)
        context = self._context
        application = await context.application_of(connection)
        room = await context.registry.room(application, command.room)
        permissions.check_moderate(room.config, user, moderator=connection.moderator)
        connection.cork()
        try:
            await context.pool.run(config.delete_room, room.config.id)
            connection.send(Reply(id=command.id, data={}))
        finally:
            connection.uncork()

    # Rooms on demand ---------------------------------------------------------------------------------

    async def room_to_join(self, connection: Connection, command: Join | Subscribe, user: User) -> Room:
        """Return the room that a command names; it is created where that is allowed."""
        application = await self._context.application_of(connection)
        make = command.create if isinstance(command, CompatJoin | CompatSubscribe) else "on_demand"
        # A room that is created in any case has no owner.
        owner = None if make == "always" else user
        return await self.room_on_demand(application, command.room, owner, make=make)

    async def room_on_demand(
        self, application: Application, name: str, user: User | None, *, make: CreatePolicy = "on_demand"
    ) -> Room:
        """Return the room of that name; create it where ``make`` allows that.

        ``on_demand`` creates it if the application allows rooms on demand, ``always`` in any case.
        ``user`` becomes the owner of a created room; None: the server. Raises RoomNotFound.
        """
        allowed = make == "always" or (make == "on_demand" and application.config.rooms_on_demand)
        created = False
        while (room := await self._context.registry.find_room(application, name)) is None:
            if not allowed:
                raise RoomNotFound(f"There is no room {name}.")
            try:
                await self._context.pool.run(
                    config.create_room, application.config, CreateRoom(room=name), user
                )
            except RoomExists:
                # Another client created it just now; look again.
                continue
            created = True
        if created:
            self._created.add(room.config.id)
        return room

    # Removal -----------------------------------------------------------------------------------------

    def forget(self, pk: int) -> None:
        """Note that the room with this id is gone."""
        self._created.discard(pk)

    async def remove(self, room: Room) -> None:
        """Delete a room that may have members.

        The members are notified as for every deleted row.
        """
        if not room.removed:
            await self._context.pool.run(config.delete_room, room.config.id)

    async def remove_if_empty(self, room: Room) -> None:
        """Delete a temporary room if it has no members in any process.

        A temporary room is deleted with its last member.
        """
        async with room.lock:
            if room.removed or not await self._context.presence.close_group(room.key):
                return
            await self._context.pool.run(config.delete_room, room.config.id)
            # Only now: a join while the row exists finds this room, waits for the lock, and looks again.
            self._context.registry.remove_room(room)

    async def sweep(self) -> None:
        """Delete rooms that go with their last member and stayed empty.

        No client joined them, or a crash left them behind. Where presence is not shared, another process
        may have members in rooms that look empty here: then only rooms that were created or are loaded
        here are deleted.
        """
        context = self._context
        before = timezone.now() - timedelta(seconds=context.settings.empty_room_ttl)
        rooms = await context.pool.run(config.temporary_rooms, before)
        if not context.presence.shared:
            rooms = [pk for pk in rooms if pk in self._created or context.registry.room_by_id(pk)]
        counts = await context.presence.counts([room_group(pk) for pk in rooms])
        for pk, count in zip(rooms, counts, strict=True):
            if count:
                continue
            room = context.registry.room_by_id(pk)
            if room is not None:
                await self.remove_if_empty(room)
            elif await context.presence.close_group(room_group(pk)):
                await context.pool.run(config.delete_room, pk)

    async def info(self, pk: int, found: RoomConfig) -> RoomInfo:
        """Return the room as a list shows it, with its members counted."""
        return found.info((await self._context.presence.counts([room_group(pk)]))[0])
