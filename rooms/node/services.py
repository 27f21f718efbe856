"""The services of a node for extension handlers and the site.

The site calls them through ``api.py``. The methods may be called from any event loop; the work is
done in the node's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rooms.concurrency.loops import in_loop
from rooms.extensions.contexts import Owner
from rooms.hub.application import Application
from rooms.hub.connection import Connection
from rooms.hub.room import Room
from rooms.node.context import NodeContext
from rooms.node.control_messages import AnyControlMessage
from rooms.node.outbound import OutboundConnection, OutboundConnections, Serve
from rooms.node.publisher import Publisher
from rooms.node.replies import encode_data
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.protocol import validators
from rooms.protocol.errors import CloseCode, RoomNotFound, UnknownConnection
from rooms.protocol.events import Direct, Message
from rooms.protocol.types import User


class Components(Protocol):
    """The node, as its services see it."""

    loop: asyncio.AbstractEventLoop
    context: NodeContext
    publisher: Publisher
    lifecycle: RoomLifecycle

    async def send_control(self, message: AnyControlMessage) -> None: ...


class NodeServices:
    def __init__(self, node: Components) -> None:
        self._node = node
        self._outbound = OutboundConnections()

    # Rooms -------------------------------------------------------------------------------------------

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
        """Publish a message as the server; see ``rooms.api.publish``."""
        options = {"event": event, "to": to, "state": state, "volatile": volatile}
        message: Message = await self._in_loop(self._publish(application, room, data, options))
        return message

    async def members(self, application: str, room: str) -> list[User]:
        users: list[User] = await self._in_loop(self._members(application, room))
        return users

    async def history(self, application: str, room: str, limit: int) -> list[Message]:
        messages: list[Message] = await self._in_loop(self._history(application, room, limit))
        return messages

    async def send_control(self, message: AnyControlMessage) -> None:
        """Act on a control message here, and send it to the other nodes."""
        await self._in_loop(self._node.send_control(message))

    async def _publish(self, application: str, room: str, data: Any, options: dict[str, Any]) -> Message:
        found = await self._node.lifecycle.room_on_demand(
            await self._application(application), validators.room_name(room), None
        )
        return await self._node.publisher.publish(found, data, **options)

    async def _members(self, application: str, room: str) -> list[User]:
        found = await self._room(application, room)
        return (await self._node.context.presence.members(found.key)).users

    async def _history(self, application: str, room: str, limit: int) -> list[Message]:
        found = await self._room(application, room)
        history = self._node.context.histories[found.config.history]
        return (await history.page(found.config, before=None, after=None, limit=limit)).messages

    async def _application(self, name: str) -> Application:
        application = await self._node.context.registry.application(name)
        if application is None:
            raise RoomNotFound(f"There is no application {name}.")
        return application

    async def _room(self, application: str, name: str) -> Room:
        return await self._node.context.registry.room(await self._application(application), name)

    # Connections by number ---------------------------------------------------------------------------

    def connections(self, application: str) -> list[int]:
        """Return the numbers of an application's open connections in this process."""
        found = self._node.context.registry.cached_application(application)
        connections = [] if found is None else list(found.connections.items())
        return [number for number, connection in connections if connection.close_code is None]

    async def write(self, application: str, number: int, data: Any) -> None:
        await self._in_loop(
            self._write(application, number, data.encode() if isinstance(data, str) else data)
        )

    async def close(self, application: str, number: int) -> None:
        await self._in_loop(self._close(application, number))

    async def _write(self, application: str, number: int, data: Any) -> None:
        connection = self._connection(application, number)
        user = connection.user
        event = Direct(
            room=validators.ROOT_ROOM,
            event=validators.DEFAULT_EVENT,
            data=encode_data(data),
            sender=None,
            to="" if user is None else user.name,
        )
        connection.notify(event)

    async def _close(self, application: str, number: int) -> None:
        connection = self._connection(application, number)
        self._outbound.stop_connection(connection)
        connection.close(CloseCode.NORMAL, "Good bye.")

    def _connection(self, application: str, number: int) -> Connection:
        found = self._node.context.registry.cached_application(application)
        connection = found.connections.get(number) if found is not None else None
        if connection is None or connection.close_code is not None:
            raise UnknownConnection(f"No connection {number} of {application} is open in this process.")
        return connection

    # Outbound connections ----------------------------------------------------------------------------

    def start_outbound(self, serve: Serve) -> None:
        """From now on the connections that extensions open are connected and served."""
        self._outbound.start(serve, self._node.context.settings)

    async def close_outbound(self) -> None:
        """Close every connection that an extension opened."""
        await self._outbound.close()

    async def open_connection(
        self, extension: Owner, url: str, *, protocol: str, headers: Mapping[str, str]
    ) -> OutboundConnection:
        opened: OutboundConnection = await self._in_loop(
            self._open_connection(extension, url, protocol, headers)
        )
        return opened

    def extension_stopped(self, extension: Owner) -> None:
        """Close the connections that a stopped extension opened."""
        self._outbound.stop_owner(extension)

    async def _open_connection(
        self, extension: Owner, url: str, protocol: str, headers: Mapping[str, str]
    ) -> OutboundConnection:
        return self._outbound.open(extension, url, protocol=protocol, headers=headers)

    def _in_loop(self, work: Any) -> Any:
        return in_loop(self._node.loop, work)
