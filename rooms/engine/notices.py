"""What happens to open sockets when a row changes: in the admin, in code, in another process."""

from __future__ import annotations

import logging

from rooms import catalogue
from rooms.catalogue import Restricted, group_of
from rooms.engine.directory import LiveApplication, LiveRoom
from rooms.engine.management import Management
from rooms.engine.membership import Membership
from rooms.engine.parts import Parts
from rooms.errors import CloseCode, RoomsError
from rooms.events import RoomAdded, RoomRemoved
from rooms.fanout import Connection
from rooms.notices import AnyNotice, ApplicationChanged, RoomChanged, UserDisconnected

logger = logging.getLogger("rooms.engine")


class Notices:
    def __init__(self, parts: Parts, membership: Membership, management: Management) -> None:
        self._parts = parts
        self._membership = membership
        self._management = management

    async def handle(self, notice: AnyNotice) -> None:
        """Carry out a notice; a backend that is down leaves it to the next reading of the row."""
        try:
            if isinstance(notice, ApplicationChanged):
                await self._application_changed(notice)
            elif isinstance(notice, RoomChanged):
                await self._room_changed(notice)
            else:
                self._user_disconnected(notice)
        except RoomsError as error:
            logger.warning("A notice could not be carried out: %s", error.message)

    async def _application_changed(self, notice: ApplicationChanged) -> None:
        known = self._parts.directory.known_application(notice.application)
        if known is None:
            return
        live = await self._parts.directory.load_application(notice.application)
        connections = self._parts.hub.members(known.group)
        if live is None or not live.record.enabled:
            for connection in connections:
                connection.close(CloseCode.NO_SUCH_APPLICATION, "This application is not open any more.")
            return
        for connection in connections:
            if _is_restricted(connection, live.record.bans):
                connection.close(CloseCode.BANNED, "You are banned here.")

    async def _room_changed(self, notice: RoomChanged) -> None:
        application = self._parts.directory.known_application(notice.application)
        if application is None:
            return
        live = self._parts.directory.room_by_id(notice.room)
        if notice.deleted:
            await self._deleted(application, notice, live)
            return
        old = live.record if live else None
        record = (
            await self._parts.directory.reload_room(live)
            if live
            else await self._parts.pool.run(catalogue.load_room_by_id, application.record, notice.room)
        )
        if record is None:
            return
        if live is not None and record.name != live.name:
            await self._remove(live, f"The room is called {record.name} now.")
        elif live is not None and old is not None:
            await self._enforce(live, moved=old.history != record.history)
        if notice.name != record.name and notice.listed:
            self._parts.hub.group_send(application.watchers, RoomRemoved(room=notice.name))
        if record.listed:
            info = await self._management.info(record.id, record)
            self._parts.hub.group_send(application.watchers, RoomAdded(room=info))
        elif notice.listed:
            self._parts.hub.group_send(application.watchers, RoomRemoved(room=record.name))

    async def _deleted(
        self, application: LiveApplication, notice: RoomChanged, live: LiveRoom | None
    ) -> None:
        if live is not None:
            await self._remove(live, "The room was closed.")
        else:
            await self._parts.presence.clear(group_of(notice.room))
        for history in self._parts.histories.values():
            await history.forget(notice.room)
        if notice.listed:
            self._parts.hub.group_send(application.watchers, RoomRemoved(room=notice.name))

    async def _remove(self, room: LiveRoom, message: str) -> None:
        """The room is no more under this name: everybody in it here is put out."""
        self._parts.directory.remove_room(room)
        await self._membership.dissolve(room, message)

    async def _enforce(self, room: LiveRoom, *, moved: bool) -> None:
        """A change of the room that concerns those who are in it."""
        for connection in self._parts.hub.members(room.group):
            if moved:
                connection.close(CloseCode.RESYNC, "The room's history is kept elsewhere now.")
            elif not connection.moderator and _is_restricted(connection, room.record.bans):
                await self._put_out(connection, room)

    async def _put_out(self, connection: Connection, room: LiveRoom) -> None:
        place, user = connection.memberships.get(room.name), connection.user
        if place is not None and user is not None:
            await self._membership.put_out(
                connection, place, user, "kicked", removed="banned", message="You are banned from this room."
            )

    def _user_disconnected(self, notice: UserDisconnected) -> None:
        for live in self._parts.directory.applications():
            if notice.application in (None, live.record.name):
                for connection in self._parts.hub.members(live.group):
                    if connection.user is not None and connection.user.id == notice.user:
                        connection.close(CloseCode(notice.code), notice.message)


def _is_restricted(connection: Connection, restrictions: tuple[Restricted, ...]) -> bool:
    user = connection.user
    return user is not None and any(each.concerns(user) for each in restrictions)
