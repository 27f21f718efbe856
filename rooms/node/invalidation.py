"""Apply changed rows to the open sockets.

A row is changed by the admin, by code or by another process.
"""

from __future__ import annotations

import logging
from functools import partial

from django.contrib.auth import get_user_model
from msgspec import UNSET, UnsetType

from rooms.concurrency.locks import Locks
from rooms.hub.application import Application
from rooms.hub.config import ApplicationConfig, RoomConfig
from rooms.hub.connection import Connection
from rooms.hub.room import Room
from rooms.node import config, permissions
from rooms.node.context import NodeContext, membership_in
from rooms.node.control_messages import (
    AnyControlMessage,
    ApplicationChanged,
    RoomChanged,
    UserDisconnected,
)
from rooms.node.leave import LeaveHandler
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import RoomAdded, RoomEdited, RoomRemoved
from rooms.protocol.types import User

logger = logging.getLogger("rooms.node")


class Invalidation:
    def __init__(self, context: NodeContext, leave: LeaveHandler, lifecycle: RoomLifecycle) -> None:
        self._context = context
        self._leave = leave
        self._lifecycle = lifecycle
        self._handling = Locks()

    async def handle(self, message: AnyControlMessage) -> None:
        """Act on a control message. While a backend is down, the next refresh repeats it."""
        try:
            if isinstance(message, ApplicationChanged):
                if self._context.registry.cached_application(message.application) is not None:
                    await self._context.registry.load_application(message.application)
            elif isinstance(message, RoomChanged):
                # One after the other, so that a removal is not sent before what preceded it.
                async with self._handling.of(message.room):
                    await self._reload_room(message)
            else:
                self._disconnect_user(message)
        except RoomsError as error:
            logger.warning("A control message could not be acted on: %s", error.message)

    # Configs -----------------------------------------------------------------------------------------

    def apply_application(self, application: Application) -> None:
        """Close the connections that the application's new config does not allow."""
        current = application.config
        connections = list(application.members.members)
        names = {connection.protocol.name for connection in connections}
        allowed = {name: current.allows_protocol(name) for name in names}
        for connection in connections:
            if not allowed[connection.protocol.name]:
                connection.close(CloseCode.NO_SUCH_APPLICATION, "This application is disabled or deleted.")
            elif current.bans and (
                text := permissions.restriction(current.bans, connection.identities, permissions.BANNED)
            ):
                connection.close(CloseCode.BANNED, text)
            elif (
                current.entry != "anyone" and (user := _entering_user(connection)) is not None and user.guest
            ):
                # The groups of signed-in users, where they matter, are in the database.
                _close_if_refused(current, connection, user, frozenset())
        if current.entry == "group":
            self._context.spawn_with_retry(partial(self._check_groups, application))

    async def _check_groups(self, application: Application) -> None:
        """Close the signed-in users that are not in the application's group."""
        current = application.config
        users = [(each, _entering_user(each)) for each in application.members.members]
        signed_in = [(connection, user) for connection, user in users if user and not user.guest]
        groups = await self._context.pool.run(_groups_of, {user.id for _, user in signed_in}, current.group)
        if application.config != current:
            # It changed once more, which starts another check.
            return
        for connection, user in signed_in:
            _close_if_refused(current, connection, user, groups.get(user.id, frozenset()))

    def apply_room(self, room: Room, old: RoomConfig) -> None:
        """Remove the members that the room's new config does not allow."""
        moved = old.history != room.config.history
        if moved:
            # Another history numbers the messages anew.
            room.reset_position()
        for connection in list(room.members):
            if moved:
                connection.close(CloseCode.RESYNC, "The room has another history now.")
            elif room.config.bans and connection.user is not None and not connection.moderator:
                text = permissions.restriction(
                    room.config.bans, connection.identities, permissions.banned_from(room.config)
                )
                if text is not None:
                    self._context.tasks.spawn(self._remove_banned(connection, room, text))

    async def _remove_banned(self, connection: Connection, room: Room, text: str) -> None:
        membership, user = membership_in(connection, room), connection.user
        if membership is not None and user is not None:
            await self._leave.remove(connection, membership, user, "kicked", removed="banned", message=text)

    # Control messages --------------------------------------------------------------------------------

    async def _reload_room(self, message: RoomChanged) -> None:
        registry = self._context.registry
        application = registry.cached_application(message.application)
        room = registry.room_by_id(message.room)
        if room is None and application is not None:
            # It may be loading from a row that is gone by now.
            await registry.wait_loaded(application, message.name)
            room = registry.room_by_id(message.room)
        if message.deleted:
            await self._forget_room(message, room)
        if application is None:
            return
        if message.deleted:
            if message.listed:
                application.room_list.broadcast(RoomRemoved(room=message.name))
            return
        found = (
            await registry.reload_room(room)
            if room
            else await self._context.pool.run(config.load_room_by_id, application.config, message.room)
        )
        if found is None:
            if room is not None:
                # It is gone as well, or belongs to another application now.
                await self._remove_room(room, "The room was closed.")
            return
        if room is not None and found.name != room.name:
            await self._remove_room(room, f"The room is called {found.name} now.", renamed=found.name)
        await self._update_room_list(application, message, found)

    async def _update_room_list(
        self, application: Application, message: RoomChanged, found: RoomConfig
    ) -> None:
        """Send the change to the connections that asked for the room list."""
        room_list = application.room_list
        if message.name != found.name and message.listed:
            room_list.broadcast(RoomRemoved(room=message.name))
        if found.listed:
            info = await self._lifecycle.info(found.id, found)
            known = message.listed and message.name == found.name
            room_list.broadcast(RoomEdited(room=info) if known else RoomAdded(room=info))
        elif message.listed:
            room_list.broadcast(RoomRemoved(room=found.name))

    async def _forget_room(self, message: RoomChanged, room: Room | None) -> None:
        if room is not None:
            await self._remove_room(room, "The room was closed.")
        self._lifecycle.forget(message.room)
        for history in self._context.histories.values():
            await history.forget(message.room)

    async def _remove_room(self, room: Room, message: str, *, renamed: str | UnsetType = UNSET) -> None:
        """Remove a room and all its members in this process.

        The room does not exist any more under this name.
        """
        self._context.registry.remove_room(room)
        await self._leave.dissolve(room, message, renamed=renamed)

    def _disconnect_user(self, message: UserDisconnected) -> None:
        for application in self._context.registry.applications():
            if message.application in (None, application.config.name):
                for connection in list(application.members.members):
                    if any(user.id == message.user for user in connection.identities):
                        connection.close(CloseCode(message.code), message.message)


def _entering_user(connection: Connection) -> User | None:
    """The user that needs permission to enter: the signed-in one, if there is one."""
    return connection.account or connection.user


def _close_if_refused(
    application: ApplicationConfig, connection: Connection, user: User, groups: frozenset[int]
) -> None:
    try:
        permissions.check_entry(application, user, groups)
    except RoomsError as error:
        connection.close(CloseCode.PERMISSIONS_CHANGED, error.message)


def _groups_of(users: set[str], group: int | None) -> dict[str, frozenset[int]]:
    """Return, of those users that are in the group, that group. Called in a thread."""
    model = get_user_model()
    # A site's own user model need not have groups.
    if group is None or not hasattr(model, "groups"):
        return {}
    members = model._default_manager.filter(pk__in=users, groups=group)
    return {str(pk): frozenset({group}) for pk in members.values_list("pk", flat=True)}
