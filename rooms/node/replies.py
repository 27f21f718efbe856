"""What the handler of a message can do on behalf of its sender, beyond the reply.

The sender's connection is held while the handler runs, so whatever of this it hears itself comes after the
reply. Next in the flow: ``messages.py`` for what goes to a room, the hub for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from rooms.concurrency.loops import in_loop
from rooms.extensions import MessageEvent
from rooms.hub.connection import Connection
from rooms.node.context import NodeContext
from rooms.node.registry import Application, Room
from rooms.protocol import validators
from rooms.protocol.errors import BadRequest, ReservedEvent
from rooms.protocol.events import Direct, Message
from rooms.protocol.native import RESERVED
from rooms.protocol.payload import from_bytes
from rooms.protocol.types import User


async def tell_user(parts: NodeContext, application: Application, event: Direct) -> None:
    """Tell all connections of the user whom ``event`` names, in every process; nobody where there is none."""
    found = await parts.presence.find(application.group, [event.to])
    recipient = found.get(event.to)
    # Names are found in whatever case, but an id is compared exactly.
    if recipient is not None and recipient.name == event.to:
        parts.users.tell(application.group, recipient.id, event)
        parts.bus.publish(application.group, event, only=[recipient.id])


def check_event(name: str, shortest: int = 0) -> None:
    """What the site's own code may call an event. Raises BadRequest, ReservedEvent."""
    if len(name) < shortest or not validators.is_event_name(name):
        raise BadRequest(
            f"An event's name has {shortest} to {validators.MAX_EVENT_LENGTH} characters, none of them NUL."
        )
    if name in RESERVED:
        raise ReservedEvent(f"The event name {name} belongs to the protocol; choose another.")


def data_of(value: Any) -> msgspec.Raw:
    """What a handler wants said, as JSON. Raises TypeError for what JSON cannot hold."""
    if isinstance(value, bytes | bytearray | memoryview):
        return from_bytes(bytes(value))
    return msgspec.Raw(msgspec.json.encode(value))


class SenderReplies:
    """For one message. Made in the engine's event loop, may be used from any."""

    def __init__(
        self,
        parts: NodeContext,
        publish: Callable[..., Awaitable[Message]],
        connection: Connection,
        user: User,
        application: Application,
        room: Room | None,
        said: msgspec.Raw,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._parts = parts
        self._publish = publish
        self._connection = connection
        self._user = user
        self._application = application
        self._room = room
        self._said = said

    async def send(self, name: str, data: Any, room: str | None) -> bool:
        return await in_loop(self._loop, self._send(name, self._data(data), room))

    async def send_to_room(self, name: str, data: Any, room: str | None) -> Message:
        return await in_loop(self._loop, self._send_to_room(name, self._data(data), room))

    async def send_to_user(self, user: str, name: str, data: Any) -> None:
        event = self._direct(name, self._data(data), validators.ROOT_ROOM, user)
        await in_loop(self._loop, tell_user(self._parts, self._application, event))

    async def _send(self, name: str, data: msgspec.Raw, room: str | None) -> bool:
        here = self._room.name if self._room is not None else ""
        event = self._direct(name, data, here if room is None else room, self._user.name)
        connection = self._connection
        gone = connection.user is None or connection.close_code is not None
        if gone or connection.is_slow() or (frame := connection.protocol.encode(event)) is None:
            return False
        connection.push(frame)
        return True

    async def _send_to_room(self, name: str, data: msgspec.Raw, room: str | None) -> Message:
        there = self._room
        if room is not None and (there is None or there.name != room):
            there = await self._parts.directory.room(self._application, room)
        return await self._publish(there, data, event=name, sender=self._user, exclude=self._connection)

    def _direct(self, name: str, data: msgspec.Raw, room: str, to: str) -> Direct:
        check_event(name)
        return Direct(room=room, event=name, data=data, sender=self._user, to=to)

    def _data(self, value: Any) -> msgspec.Raw:
        data = data_of(value)
        # What was sent is passed on as it was sent, blanks and digits included.
        same = msgspec.json.encode(msgspec.json.decode(self._said))
        return self._said if bytes(data) == same else data


def message_event(
    parts: NodeContext,
    publish: Callable[..., Awaitable[Message]],
    connection: Connection,
    user: User,
    application: Application,
    room: Room | None,
    name: str,
    said: msgspec.Raw,
    *,
    room_name: str = "",
) -> MessageEvent:
    """What the handlers of a message are given; ``publish`` is that of ``Messages``."""
    return MessageEvent(
        None if room is None else room.context,
        user,
        connection.id,
        name,
        msgspec.json.decode(said),
        claims=connection.claims,
        room_name=room_name,
        replies=SenderReplies(parts, publish, connection, user, application, room, said),
    )
