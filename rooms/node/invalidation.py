"""What happens to open sockets when a row changes: in the admin, in code, in another process."""

from __future__ import annotations

import logging
from functools import partial

from django.contrib.auth import get_user_model
from msgspec import UNSET, UnsetType

from rooms.concurrency.locks import Locks
from rooms.hub.config import ApplicationConfig, RoomConfig
from rooms.hub.connection import Connection
from rooms.node import config, permissions
from rooms.node.context import NodeContext, membership_in
from rooms.node.control_messages import AnyControlMessage, ApplicationChanged, RoomChanged, UserDisconnected
from rooms.node.leave import LeaveHandler
from rooms.node.registry import Application, Room
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import RoomAdded, RoomEdited, RoomRemoved
from rooms.protocol.types import User

logger = logging.getLogger("rooms.node")


class Invalidation:
    def __init__(self, parts: NodeContext, departing: LeaveHandler, management: RoomLifecycle) -> None:
        self._parts = parts
        self._departing = departing
        self._management = management
        self._handling = Locks()

    async def handle(self, notice: AnyControlMessage) -> None:
        """Carry out a notice; a backend that is down leaves it to the next reading of the row."""
        try:
            if isinstance(notice, ApplicationChanged):
                if self._parts.directory.known_application(notice.application) is not None:
                    await self._parts.directory.load_application(notice.application)
            elif isinstance(notice, RoomChanged):
                # One after the other, so that a removal is not told before what preceded it.
                async with self._handling.of(notice.room):
                    await self._room_changed(notice)
            else:
                self._user_disconnected(notice)
        except RoomsError as error:
            logger.warning("A notice could not be carried out: %s", error.message)

    def application_changed(self, application: Application) -> None:
        """The record is another: close those who may not be here any more."""
        record = application.record
        for connection in self._parts.hub.members(application.group):
            if not record.allows_protocol(connection.protocol.name):
                connection.close(CloseCode.NO_SUCH_APPLICATION, "This application is not open any more.")
            elif sentence := permissions.restriction(record.bans, connection.people, permissions.BANNED):
                connection.close(CloseCode.BANNED, sentence)
            elif (user := _enters_as(connection)) is not None and user.guest:
                # The signed-in users' groups, where those matter, are in the database.
                _close_if_refused(record, connection, user, frozenset())
        if record.entry == "group":
            action = partial(self._check_groups, application)
            self._parts.tasks.spawn(self._parts.departures.attempt(action))

    async def _check_groups(self, application: Application) -> None:
        """Close the signed-in users who may not enter any more."""
        record = application.record
        everybody = [(each, _enters_as(each)) for each in self._parts.hub.members(application.group)]
        inside = [(connection, user) for connection, user in everybody if user and not user.guest]
        groups = await self._parts.pool.run(_groups_of, {user.id for _, user in inside}, record.group)
        if application.record != record:
            # It changed once more, and is looked at anew.
            return
        for connection, user in inside:
            _close_if_refused(record, connection, user, groups.get(user.id, frozenset()))

    def room_changed(self, room: Room, old: RoomConfig) -> None:
        """The record is another: put out those who may not be here any more."""
        moved = old.history != room.record.history
        if moved:
            # Its numbers begin anew.
            self._parts.hub.reset(room.group)
        for connection in self._parts.hub.members(room.group):
            if moved:
                connection.close(CloseCode.RESYNC, "The room's history is kept elsewhere now.")
            elif connection.user is not None and not connection.moderator:
                sentence = permissions.restriction(
                    room.record.bans, connection.people, permissions.banned_from(room.record)
                )
                if sentence is not None:
                    self._parts.tasks.spawn(self._put_out(connection, room, sentence))

    async def _room_changed(self, notice: RoomChanged) -> None:
        application = self._parts.directory.known_application(notice.application)
        live = self._parts.directory.room_by_id(notice.room)
        if live is None and application is not None:
            # Somebody may be loading it from a row that is not there any more.
            await self._parts.directory.loaded(application, notice.name)
            live = self._parts.directory.room_by_id(notice.room)
        if notice.deleted:
            await self._deleted(notice, live)
        if application is None:
            return
        if notice.deleted:
            if notice.listed:
                self._parts.hub.group_send(application.watchers, RoomRemoved(room=notice.name))
            return
        record = (
            await self._parts.directory.reload_room(live)
            if live
            else await self._parts.pool.run(config.load_room_by_id, application.record, notice.room)
        )
        if record is None:
            if live is not None:
                # Gone as well, or another application's now.
                await self._remove(live, "The room was closed.")
            return
        if live is not None and record.name != live.name:
            await self._remove(live, f"The room is called {record.name} now.", renamed=record.name)
        await self._tell_watchers(application, notice, record)

    async def _tell_watchers(self, application: Application, notice: RoomChanged, record: RoomConfig) -> None:
        """Those who asked for the list hear what has become of the room."""
        if notice.name != record.name and notice.listed:
            self._parts.hub.group_send(application.watchers, RoomRemoved(room=notice.name))
        if record.listed:
            info = await self._management.info(record.id, record)
            known = notice.listed and notice.name == record.name
            self._parts.hub.group_send(
                application.watchers, RoomEdited(room=info) if known else RoomAdded(room=info)
            )
        elif notice.listed:
            self._parts.hub.group_send(application.watchers, RoomRemoved(room=record.name))

    async def _deleted(self, notice: RoomChanged, live: Room | None) -> None:
        if live is not None:
            await self._remove(live, "The room was closed.")
        self._management.forget(notice.room)
        for history in self._parts.histories.values():
            await history.forget(notice.room)

    async def _remove(self, room: Room, message: str, *, renamed: str | UnsetType = UNSET) -> None:
        """The room is no more under this name: everybody in it here is put out, and whoever is on
        the way in finds it gone."""
        self._parts.directory.remove_room(room)
        await self._departing.dissolve(room, message, renamed=renamed)

    async def _put_out(self, connection: Connection, room: Room, sentence: str) -> None:
        place, user = membership_in(connection, room), connection.user
        if place is not None and user is not None:
            await self._departing.put_out(
                connection, place, user, "kicked", removed="banned", message=sentence
            )

    def _user_disconnected(self, notice: UserDisconnected) -> None:
        for live in self._parts.directory.applications():
            if notice.application in (None, live.record.name):
                for connection in self._parts.hub.members(live.group):
                    if any(user.id == notice.user for user in connection.people):
                        connection.close(CloseCode(notice.code), notice.message)


def _enters_as(connection: Connection) -> User | None:
    """The one whose right to enter counts: the signed-in user, if there is one."""
    return connection.account or connection.user


def _close_if_refused(
    record: ApplicationConfig, connection: Connection, user: User, groups: frozenset[int]
) -> None:
    try:
        permissions.check_entry(record, user, groups)
    except RoomsError as error:
        connection.close(CloseCode.PERMISSIONS_CHANGED, error.message)


def _groups_of(users: set[str], group: int | None) -> dict[str, frozenset[int]]:
    """Of those users who are in the group: that group. To be called in a thread."""
    model = get_user_model()
    # A site's own user model need not know groups.
    if group is None or not hasattr(model, "groups"):
        return {}
    members = model._default_manager.filter(pk__in=users, groups=group)
    return {str(pk): frozenset({group}) for pk in members.values_list("pk", flat=True)}
