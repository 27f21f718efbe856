"""What the handler of a message can do on behalf of the sender, beyond the reply.

The sender's connection is corked while the handler runs, so whatever it receives of this comes after
the reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from rooms.concurrency.loops import in_loop
from rooms.extensions import MessageEvent
from rooms.hub.application import Application
from rooms.hub.connection import Connection
from rooms.hub.room import Room
from rooms.node.context import NodeContext
from rooms.node.publisher import check_event_name
from rooms.protocol import validators
from rooms.protocol.events import Direct, Message
from rooms.protocol.payload import from_bytes
from rooms.protocol.types import User


async def send_to_user(context: NodeContext, application: Application, event: Direct) -> None:
    """Send an event to all connections of the user it names, in every process.

    Without such a user, nothing is sent.
    """
    found = await context.presence.find(application.key, [event.to])
    recipient = found.get(event.to)
    # Presence finds names regardless of case; the event is for the exact name.
    if recipient is not None and recipient.name == event.to:
        application.send_to_user(recipient.id, event)
        context.broker.publish(application.key, event, only=[recipient.id])


def encode_data(value: Any) -> msgspec.Raw:
    """Return a handler's data as JSON. Raises TypeError for what JSON cannot hold."""
    if isinstance(value, bytes | bytearray | memoryview):
        return from_bytes(bytes(value))
    return msgspec.Raw(msgspec.json.encode(value))


class SenderReplies:
    """For one message. Created in the node's event loop, may be used from any."""

    def __init__(
        self,
        context: NodeContext,
        publish: Callable[..., Awaitable[Message]],
        connection: Connection,
        user: User,
        application: Application,
        room: Room | None,
        data: msgspec.Raw,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._publish = publish
        self._connection = connection
        self._user = user
        self._application = application
        self._room = room
        self._original = data

    async def send(self, name: str, data: Any, room: str | None) -> bool:
        return await in_loop(self._loop, self._send(name, self._encode(data), room))

    async def send_to_room(self, name: str, data: Any, room: str | None) -> Message:
        return await in_loop(self._loop, self._send_to_room(name, self._encode(data), room))

    async def send_to_user(self, user: str, name: str, data: Any) -> None:
        event = self._direct(name, self._encode(data), validators.ROOT_ROOM, user)
        await in_loop(self._loop, send_to_user(self._context, self._application, event))

    async def _send(self, name: str, data: msgspec.Raw, room: str | None) -> bool:
        current = self._room.name if self._room is not None else ""
        event = self._direct(name, data, current if room is None else room, self._user.name)
        connection = self._connection
        gone = connection.user is None or connection.close_code is not None
        if gone or connection.is_slow() or (frame := connection.protocol.encode(event)) is None:
            return False
        connection.push(frame)
        return True

    async def _send_to_room(self, name: str, data: msgspec.Raw, room: str | None) -> Message:
        target = self._room
        if room is not None and (target is None or target.name != room):
            target = await self._context.registry.room(self._application, room)
        return await self._publish(target, data, event=name, sender=self._user, exclude=self._connection)

    def _direct(self, name: str, data: msgspec.Raw, room: str, to: str) -> Direct:
        check_event_name(name)
        return Direct(room=room, event=name, data=data, sender=self._user, to=to)

    def _encode(self, value: Any) -> msgspec.Raw:
        data = encode_data(value)
        # Unchanged data is passed on as it was sent, with its spaces and digits.
        unchanged = msgspec.json.encode(msgspec.json.decode(self._original))
        return self._original if bytes(data) == unchanged else data


def message_event(
    context: NodeContext,
    publish: Callable[..., Awaitable[Message]],
    connection: Connection,
    user: User,
    application: Application,
    room: Room | None,
    name: str,
    data: msgspec.Raw,
    *,
    room_name: str = "",
) -> MessageEvent:
    """Return the event that the handlers of a message receive.

    ``publish`` is that of the publisher.
    """
    return MessageEvent(
        None if room is None else room.context,
        user,
        connection.id,
        name,
        msgspec.json.decode(data),
        claims=connection.claims,
        room_name=room_name,
        replies=SenderReplies(context, publish, connection, user, application, room, data),
    )
