"""Messages without a membership.

They go to one user, to a room from outside, or to the application. Only clients of other protocols
send them; the native protocol has no such commands.
"""

from __future__ import annotations

from rooms.extensions import ReceiveEvent
from rooms.hub.connection import Connection
from rooms.node import permissions
from rooms.node.context import NodeContext, connection_event, membership_in, require_user
from rooms.node.publish import MessageHandler
from rooms.node.publisher import Publisher, check_size, event_name
from rooms.node.replies import message_event, send_to_user
from rooms.protocol.compat_commands import (
    SendDirect,
    SendRawFrame,
    SendToApplication,
    SendToRoomOrApplication,
    SendWithoutJoining,
)
from rooms.protocol.errors import NotMember, PermissionDenied, RoomNotFound, RoomsError
from rooms.protocol.events import Direct, Reply
from rooms.protocol.types import User


class DirectMessages:
    def __init__(self, context: NodeContext, messages: MessageHandler, publisher: Publisher) -> None:
        self._context = context
        self._messages = messages
        self._publisher = publisher

    async def publish(self, connection: Connection, command: SendWithoutJoining) -> None:
        """Publish to a room from outside.

        Allowed where any client could join without password or extension.
        """
        await connection.wait_idle()
        user = require_user(connection)
        if command.room in connection.memberships:
            await self._messages.send(connection, command)
            return
        application = await self._context.application_of(connection)
        room = await self._context.registry.find_room(application, command.room)
        if room is None:
            connection.send(Reply(id=command.id, data={}))
            return
        for runner in room.runners:
            runner.ensure_ready()
        moderator = connection.moderator
        permissions.check_join(room.config, connection, moderator=moderator)
        if permissions.needs_password(room.config, user, moderator=moderator) or any(
            runner.handles("on_join") for runner in room.runners
        ):
            raise PermissionDenied(f"Only members of {room.name} can send messages.")
        await self._messages.publish(connection, command, room, user)

    async def direct(self, connection: Connection, command: SendDirect) -> None:
        """Send to all connections of one user. No extension is asked."""
        user = require_user(connection)
        application = await self._context.application_of(connection)
        permissions.check_send_direct(application.config, connection)
        check_size(command.data, application.config.max_message_bytes)
        event = Direct(
            room=command.room,
            event=command.event,
            data=command.data,
            sender=user,
            to=command.to,
            outside=not await self._share_room(connection, command, user),
        )
        await send_to_user(self._context, application, event)
        connection.send(Reply(id=command.id, data={}))

    async def _share_room(self, connection: Connection, command: SendDirect, user: User) -> bool:
        """Whether both users are in the room and the sender may send there.

        The conditions are those of ``to``.
        """
        room = self._context.registry.cached_room(connection.application, command.room)
        membership = membership_in(connection, room) if room is not None else None
        if room is None or membership is None or membership.subscriber:
            return False
        try:
            permissions.check_send(room.config, user, connection)
        except RoomsError:
            return False
        return command.to in await self._context.presence.find(room.key, [command.to])

    async def receive(self, connection: Connection, command: SendRawFrame) -> None:
        """Pass a raw frame to the application's extension."""
        application = await self._context.application_of(connection)
        event = ReceiveEvent(connection_event(connection, connection.user), command.data)
        await application.runner.notify("on_receive", event)

    async def offer(self, connection: Connection, command: SendToRoomOrApplication) -> None:
        """Publish to a room, or call the application's handler.

        The handler is called for a client that is no member. Its event then has no ``room``.
        """
        try:
            await self._messages.send(connection, command)
        except (NotMember, RoomNotFound):
            if not await self._run_handler(connection, command):
                raise

    async def to_application(self, connection: Connection, command: SendToApplication) -> None:
        """Call the handler of the application's extension for such messages.

        Without such a handler, the reply is empty.
        """
        if not await self._run_handler(connection, command):
            connection.send(Reply(id=command.id, data={}))

    async def _run_handler(
        self, connection: Connection, command: SendToRoomOrApplication | SendToApplication
    ) -> bool:
        user = require_user(connection)
        application = await self._context.application_of(connection)
        name = event_name(command)
        handler = application.runner.find_handler(name)
        if handler is None:
            return False
        permissions.check_send_direct(application.config, connection)
        check_size(command.data, application.config.max_message_bytes)
        event = message_event(
            self._context,
            self._publisher.publish,
            connection,
            user,
            application,
            None,
            name,
            command.data,
            room_name=command.room if isinstance(command, SendToRoomOrApplication) else "",
        )
        connection.cork()
        try:
            await application.runner.run(handler, event)
            connection.send(Reply(id=command.id, data=event.reply_data))
        finally:
            connection.uncork()
        return True
