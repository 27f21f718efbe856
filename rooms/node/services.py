"""What the engine does for code outside: for extensions' handlers and, through ``api.py``, for the site.

May be called from any event loop; the work is done in the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from rooms.concurrency.loops import in_loop
from rooms.extensions import Extension
from rooms.hub.connection import Connection
from rooms.node.context import NodeContext
from rooms.node.outbound import OutboundConnection, OutboundConnections, Serve
from rooms.node.publish import MessageHandler
from rooms.node.registry import Application
from rooms.node.replies import data_of
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.protocol import validators
from rooms.protocol.errors import CloseCode, RoomNotFound, UnknownConnection
from rooms.protocol.events import Direct, Message
from rooms.protocol.types import User


class NodeServices:
    """Handed to extensions before the engine is complete; ``serve`` completes it."""

    _parts: NodeContext
    _management: RoomLifecycle
    _messages: MessageHandler

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outbound = OutboundConnections()

    def serve(self, parts: NodeContext, management: RoomLifecycle, messages: MessageHandler) -> None:
        self._parts, self._management, self._messages = parts, management, messages

    def call(self, work: Any) -> Any:
        """Carry out a coroutine in the engine's event loop, from whichever loop is running."""
        return in_loop(self._loop, work)

    def start_outbound(self, serve: Serve) -> None:
        """From now on the connections that extensions open are connected and served."""
        self._outbound.start(serve, self._parts.settings)

    async def close_outbound(self) -> None:
        """Close every connection that an extension opened."""
        await self._outbound.close()

    async def publish(
        self,
        application: str,
        room: str,
        data: Any,
        *,
        event: str,
        to: str | Sequence[str] | None,
        state: bool,
        volatile: bool,
    ) -> Message:
        """Say something in a room as the server; see ``rooms.api.publish``."""
        message: Message = await self.call(
            self._publish(application, room, data, event=event, to=to, state=state, volatile=volatile)
        )
        return message

    async def members(self, application: str, room: str) -> list[User]:
        users: list[User] = await self.call(self._members(application, room))
        return users

    async def history(self, application: str, room: str, limit: int) -> list[Message]:
        messages: list[Message] = await self.call(self._history(application, room, limit))
        return messages

    # Connections by number ---------------------------------------------------------------------------

    def connections(self, application: str) -> list[int]:
        """The numbers of an application's connections that are open in this process."""
        live = self._parts.directory.known_application(application)
        open = [] if live is None else list(live.connections.items())
        return [number for number, connection in open if connection.close_code is None]

    async def write(self, application: str, number: int, data: Any) -> None:
        payload = data.encode() if isinstance(data, str) else data
        await in_loop(self._loop, self._write(application, number, payload))

    async def close(self, application: str, number: int) -> None:
        await in_loop(self._loop, self._close(application, number))

    async def open_connection(
        self, extension: Extension, url: str, *, protocol: str, headers: Mapping[str, str]
    ) -> OutboundConnection:
        return await in_loop(self._loop, self._open_connection(extension, url, protocol, headers))

    def extension_stopped(self, extension: Extension) -> None:
        """Close the connections that a stopped extension opened."""
        self._outbound.stop_owner(extension)

    async def _write(self, application: str, number: int, data: Any) -> None:
        connection = self._connection(application, number)
        user = connection.user
        event = Direct(
            room=validators.ROOT_ROOM,
            event=validators.DEFAULT_EVENT,
            data=data_of(data),
            sender=None,
            to="" if user is None else user.name,
        )
        connection.notify(event)

    async def _close(self, application: str, number: int) -> None:
        connection = self._connection(application, number)
        self._outbound.stop_connection(connection)
        connection.close(CloseCode.NORMAL, "Good bye.")

    async def _open_connection(
        self, extension: Extension, url: str, protocol: str, headers: Mapping[str, str]
    ) -> OutboundConnection:
        return self._outbound.open(extension, url, protocol=protocol, headers=headers)

    def _connection(self, application: str, number: int) -> Connection:
        live = self._parts.directory.known_application(application)
        connection = live.connections.get(number) if live is not None else None
        if connection is None or connection.close_code is not None:
            raise UnknownConnection(f"No connection {number} of {application} is open in this process.")
        return connection

    # In the engine's event loop ----------------------------------------------------------------------

    async def _publish(self, application: str, room: str, data: Any, **options: Any) -> Message:
        live = await self._application(application)
        found = await self._management.room_on_demand(live, validators.room_name(room), None)
        return await self._messages.publish(found, data, **options)

    async def _members(self, application: str, room: str) -> list[User]:
        live = await self._application(application)
        found = await self._parts.directory.room(live, room)
        return (await self._parts.presence.members(found.group)).users

    async def _history(self, application: str, room: str, limit: int) -> list[Message]:
        live = await self._application(application)
        found = await self._parts.directory.room(live, room)
        history = self._parts.histories[found.record.history]
        return (await history.page(found.record, before=None, after=None, limit=limit)).messages

    async def _application(self, name: str) -> Application:
        live = await self._parts.directory.application(name)
        if live is None:
            raise RoomNotFound(f"There is no application {name}.")
        return live
