"""Making rooms, listing them and taking them away."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from django.contrib.auth.hashers import make_password
from django.utils import timezone

from rooms.concurrency.rate_limits import list_limit
from rooms.hub.config import RoomConfig, group_of
from rooms.hub.connection import Connection
from rooms.node import config, permissions
from rooms.node.context import NodeContext, user_of
from rooms.node.registry import Application, Room
from rooms.protocol.commands import CloseRoom, CreateRoom, Join, ListRooms, Subscribe
from rooms.protocol.compat_commands import CompatJoin, CompatSubscribe
from rooms.protocol.errors import RoomExists, RoomNotFound
from rooms.protocol.events import Reply, RoomInfo
from rooms.protocol.types import CreatePolicy, User


class RoomLifecycle:
    def __init__(self, parts: NodeContext) -> None:
        self._parts = parts
        # Ids of the rooms that users made here and that are still there.
        self._made: set[int] = set()

    async def list(self, connection: Connection, request: ListRooms) -> None:
        """Answer with the listed rooms; from now on the connection hears of new and removed ones."""
        user_of(connection)
        application = await self._parts.application_of(connection)
        limit = list_limit(request.limit)
        connection.hold()
        try:
            # First the group, then the list: a room that is made in between is told twice, not never.
            self._parts.hub.group_add(application.watchers, connection)
            rooms = await self._parts.pool.run(
                config.list_rooms, application.record, request.prefix or "", limit + 1
            )
            counts = await self._parts.presence.counts([group_of(pk) for pk in rooms])
            listed = [
                msgspec.structs.replace(info, members=count)
                for info, count in zip(rooms.values(), counts, strict=True)
            ]
            connection.send(Reply(id=request.id, data={"rooms": listed[:limit], "more": len(listed) > limit}))
        finally:
            connection.release()

    async def create(self, connection: Connection, request: CreateRoom) -> None:
        """Make a room that the user owns, and still has to join."""
        user = user_of(connection)
        application = await self._parts.application_of(connection)
        permissions.check_create(application.record)
        connection.hold()
        try:
            password = await self._hash(request.password)
            await self._parts.pool.run(config.create_room, application.record, request, user, password)
            room = await self._parts.directory.room(application, request.room)
            self._made.add(room.record.id)
            details = permissions.details(room.record, user, moderator=connection.moderator)
            connection.send(Reply(id=request.id, data={"room": details}))
        finally:
            connection.release()

    async def close(self, connection: Connection, request: CloseRoom) -> None:
        """Remove a room; its members hear of it as of any removed room (``node/control_messages.py``)."""
        user = user_of(connection)
        application = await self._parts.application_of(connection)
        room = await self._parts.directory.room(application, request.room)
        permissions.check_moderate(room.record, user, moderator=connection.moderator)
        connection.hold()
        try:
            await self._parts.pool.run(config.delete_room, room.record.id)
            connection.send(Reply(id=request.id, data={}))
        finally:
            connection.release()

    async def _hash(self, password: str | None) -> str:
        """Slow on purpose, and so not in the threads that everybody needs."""
        return await self._parts.passwords.run(make_password, password) if password else ""

    async def room_to_enter(self, connection: Connection, request: Join | Subscribe, user: User) -> Room:
        """The room that a request names, made where that may be."""
        application = await self._parts.application_of(connection)
        create = request.create if isinstance(request, CompatJoin | CompatSubscribe) else "on_demand"
        # One that is there whatever anybody wants is nobody's.
        owner = None if create == "always" else user
        return await self.room_on_demand(application, request.room, owner, create=create)

    async def room_on_demand(
        self, application: Application, name: str, user: User | None, *, create: CreatePolicy = "on_demand"
    ) -> Room:
        """The room of that name, made on demand where the application allows it.

        ``user`` will own a room that is made, None makes it the server's. Raises RoomNotFound.
        """
        may_make = create == "always" or (create == "on_demand" and application.record.rooms_on_demand)
        made = False
        while (room := await self._parts.directory.find_room(application, name)) is None:
            if not may_make:
                raise RoomNotFound(f"There is no room {name}.")
            try:
                await self._parts.pool.run(
                    config.create_room, application.record, CreateRoom(room=name), user
                )
            except RoomExists:
                # Somebody else made it just now; look again.
                continue
            made = True
        if made:
            self._made.add(room.record.id)
        return room

    def forget(self, room: int) -> None:
        """The room with this id is not there any more."""
        self._made.discard(room)

    async def remove(self, room: Room) -> None:
        """The room goes now, whoever is in it; they hear of it as of any removed room."""
        if not room.gone:
            await self._parts.pool.run(config.delete_room, room.record.id)

    async def remove_if_empty(self, room: Room) -> None:
        """The last one is out of a room that goes with its last member."""
        async with room.admission:
            if room.gone or not await self._parts.presence.close_group(room.group):
                return
            await self._parts.pool.run(config.delete_room, room.record.id)
            # Only now: whoever comes while the row still stands finds this room, waits, and looks again.
            self._parts.directory.remove_room(room)

    async def sweep(self) -> None:
        """Remove passing rooms that stayed empty, which nobody entered or a crash left behind.

        Where presence is not shared, another process may have people in rooms that look empty here: then
        only those that were made or are in use here, and what a crash left stays until it is used again.
        """
        before = timezone.now() - timedelta(seconds=self._parts.settings.empty_room_ttl)
        rooms = await self._parts.pool.run(config.passing_rooms, before)
        if not self._parts.presence.shared:
            rooms = [pk for pk in rooms if pk in self._made or self._parts.directory.room_by_id(pk)]
        counts = await self._parts.presence.counts([group_of(pk) for pk in rooms])
        for pk, count in zip(rooms, counts, strict=True):
            if count:
                continue
            live = self._parts.directory.room_by_id(pk)
            if live is not None:
                await self.remove_if_empty(live)
            elif await self._parts.presence.close_group(group_of(pk)):
                await self._parts.pool.run(config.delete_room, pk)

    async def info(self, room: int, record: RoomConfig) -> RoomInfo:
        """The room as a list shows it, with its members counted."""
        return record.info((await self._parts.presence.counts([group_of(room)]))[0])
