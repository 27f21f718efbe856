"""Saying something without being in a room: to one user, to a room from outside, to the application.

Asked by clients of protocols that know such messages; the native protocol does not.
"""

from __future__ import annotations

from collections.abc import Iterable

from rooms.extensions import ReceiveEvent
from rooms.hub.connection import Connection
from rooms.node import permissions
from rooms.node.broker import BrokerMessage
from rooms.node.context import NodeContext, event_of, membership_in, user_of
from rooms.node.publish import MessageHandler, name_of
from rooms.node.replies import message_event, tell_user
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
    def __init__(self, parts: NodeContext, messages: MessageHandler) -> None:
        self._parts = parts
        self._messages = messages

    async def publish(self, connection: Connection, request: SendWithoutJoining) -> None:
        """To a room from outside, where anybody may come in: no password, no handler that lets people in."""
        await connection.answered()
        user = user_of(connection)
        if request.room in connection.memberships:
            await self._messages.send(connection, request)
            return
        application = await self._parts.application_of(connection)
        room = await self._parts.directory.find_room(application, request.room)
        if room is None:
            connection.send(Reply(id=request.id, data={}))
            return
        for hooks in room.levels:
            hooks.ensure_ready()
        moderator = connection.moderator
        permissions.check_join(room.record, connection.people, moderator=moderator)
        if permissions.needs_password(room.record, user, moderator=moderator) or any(
            hooks.handles("on_join") for hooks in room.levels
        ):
            raise PermissionDenied(f"Only members speak in {room.name}.")
        await self._messages.say(connection, request, room, user)

    async def direct(self, connection: Connection, request: SendDirect) -> None:
        """To all connections of one user; no handler is asked."""
        user = user_of(connection)
        application = await self._parts.application_of(connection)
        permissions.check_voice(application.record, connection.people)
        self._messages.check_size(request.data, application.record.max_message_bytes)
        event = Direct(
            room=request.room,
            event=request.event,
            data=request.data,
            sender=user,
            to=request.to,
            outside=not await self._may_whisper(connection, request, user),
        )
        await tell_user(self._parts, application, event)
        connection.send(Reply(id=request.id, data={}))

    async def _may_whisper(self, connection: Connection, request: SendDirect, user: User) -> bool:
        """Whether both are in the room and the sender may speak there: then it is as any message to one."""
        room = self._parts.directory.known_room(connection.application, request.room)
        place = membership_in(connection, room) if room is not None else None
        if room is None or place is None or place.listens_only:
            return False
        try:
            permissions.check_send(room.record, user, connection.people)
        except RoomsError:
            return False
        return request.to in await self._parts.presence.find(room.group, [request.to])

    def relayed(self, group: str, relay: BrokerMessage) -> None:
        """Another process said so."""
        if isinstance(relay.event, Direct):
            self.deliver(group, relay.event, relay.only or ())
        else:
            self._parts.hub.group_send(group, relay.event, only=relay.only, volatile=relay.volatile)

    def deliver(self, application: str, event: Direct, users: Iterable[str]) -> None:
        """Tell those connections of users (ids) that are in this process; ``application`` is its group."""
        for user in users:
            self._parts.users.tell(application, user, event)

    async def receive(self, connection: Connection, request: SendRawFrame) -> None:
        """A frame as it came, for the application's extension."""
        application = await self._parts.application_of(connection)
        event = ReceiveEvent(event_of(connection, connection.user), request.data)
        await application.hooks.notify("on_receive", event)

    async def offer(self, connection: Connection, request: SendToRoomOrApplication) -> None:
        """To a room; if one is not in it, for the application's handler, whose event then has
        no ``room``."""
        try:
            await self._messages.send(connection, request)
        except (NotMember, RoomNotFound):
            if not await self._taken(connection, request):
                raise

    async def to_application(self, connection: Connection, request: SendToApplication) -> None:
        """For the handler of the application's extension that takes such messages, if there is one."""
        if not await self._taken(connection, request):
            connection.send(Reply(id=request.id, data={}))

    async def _taken(
        self, connection: Connection, request: SendToRoomOrApplication | SendToApplication
    ) -> bool:
        user = user_of(connection)
        application = await self._parts.application_of(connection)
        name = name_of(request)
        handler = application.hooks.find_handler(name)
        if handler is None:
            return False
        permissions.check_voice(application.record, connection.people)
        self._messages.check_size(request.data, application.record.max_message_bytes)
        event = message_event(
            self._parts,
            self._messages.publish,
            connection,
            user,
            application,
            None,
            name,
            request.data,
            room_name=request.room if isinstance(request, SendToRoomOrApplication) else "",
        )
        connection.hold()
        try:
            await application.hooks.run(handler, event)
            connection.send(Reply(id=request.id, data=event.reply_data))
        finally:
            connection.release()
        return True
