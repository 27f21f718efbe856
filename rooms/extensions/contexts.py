"""The arguments of handlers: events, the room, and what a handler can do.

They hold no state of the node and call it through ``ExtensionServices``, from any thread or event loop. A
plain ``def`` handler calls their coroutines with ``asgiref.sync.async_to_sync``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from typing import Protocol as Structural

from rooms.protocol.events import Message
from rooms.protocol.types import User


class Owner(Structural):
    """An extension, as the owner of outbound connections."""

    application: str


class OutboundHandle(Structural):
    """A connection that an extension opened to another service.

    A lost connection is reopened, until the handle is closed or this server closes the connection with a
    final code.
    """

    @property
    def url(self) -> str: ...

    @property
    def number(self) -> int | None:
        """The number of the open connection, if any; each reconnect has a new one."""

    @property
    def closed(self) -> bool:
        """Whether it is no longer reopened."""

    def close(self) -> None:
        """Close the connection and stop reopening it. Thread-safe."""


class ExtensionServices(Structural):
    """What the node does for an extension."""

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
    ) -> Message: ...

    async def members(self, application: str, room: str) -> list[User]: ...

    async def history(self, application: str, room: str, limit: int) -> list[Message]: ...

    def connections(self, application: str) -> list[int]: ...

    async def write(self, application: str, number: int, data: Any) -> None: ...

    async def close(self, application: str, number: int) -> None: ...

    async def open_connection(
        self, extension: Owner, url: str, *, protocol: str, headers: Mapping[str, str]
    ) -> OutboundHandle: ...

    def extension_stopped(self, extension: Owner) -> None: ...


class Replies(Structural):
    """What the node does on behalf of the sender of a message."""

    async def send(self, name: str, data: Any, room: str | None) -> bool: ...

    async def send_to_room(self, name: str, data: Any, room: str | None) -> Message: ...

    async def send_to_user(self, user: str, name: str, data: Any) -> None: ...


class RoomContext:
    """A room, for handlers."""

    def __init__(self, services: ExtensionServices, application: str, name: str) -> None:
        self._services = services
        self.application = application
        self.name = name

    def __repr__(self) -> str:
        return f"<RoomContext {self.application}/{self.name}>"

    async def publish(
        self,
        event: str,
        data: Any,
        *,
        to: str | Sequence[str] | None = None,
        state: bool = False,
        volatile: bool = False,
    ) -> Message:
        """Publish a message in the room, as the server (``from`` is null).

        ``data`` is any JSON value; ``to``, ``state`` and ``volatile`` are those of the native protocol.
        """
        return await self._services.publish(
            self.application, self.name, data, event=event, to=to, state=state, volatile=volatile
        )

    async def members(self) -> list[User]:
        """Return the members of the room, by name."""
        return await self._services.members(self.application, self.name)

    async def history(self, limit: int = 50) -> list[Message]:
        """Return the newest messages, oldest first."""
        return await self._services.history(self.application, self.name, limit)


#: The claims of a connection whose handshake set none.
NO_CLAIMS: Mapping[str, str] = MappingProxyType({})


class HandshakeEvent:
    """A WebSocket handshake that is not accepted yet.

    ``user`` is the signed-in user of the site, where the handshake came from one of its pages. ``query`` and
    ``headers`` (names in lower case) are those of the request. ``claims``, a dict of strings that the handler
    fills, are part of every later event of the connection.
    """

    def __init__(
        self,
        application: str,
        protocol: str,
        path: str,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        address: str,
        user: User | None,
        claims: dict[str, str],
    ) -> None:
        self.application = application
        self.protocol = protocol
        self.path = path
        self.query = query
        self.headers = headers
        self.address = address
        self.user = user
        self.claims = claims


class ConnectionEvent:
    """A connection was opened or closed, or its user logged in or out.

    ``user`` is None before the login. ``number`` counts the connections of the application in this process
    from 1. ``claims`` are those of the handshake.
    """

    def __init__(
        self,
        application: str,
        connection_id: str,
        address: str,
        user: User | None,
        *,
        number: int = 0,
        claims: Mapping[str, str] = NO_CLAIMS,
    ) -> None:
        self.application = application
        self.connection_id = connection_id
        self.address = address
        self.user = user
        self.number = number
        self.claims = claims


class ReceiveEvent:
    """A frame that a connection sent; text as UTF-8."""

    def __init__(self, source: ConnectionEvent, data: bytes) -> None:
        self.application = source.application
        self.connection_id = source.connection_id
        self.number = source.number
        self.user = source.user
        self.claims = source.claims
        self.data = data


class JoinEvent:
    """A user joins a room; once per user, not per connection.

    A ``subscriber`` receives messages and is not a member: no ``on_leave`` follows.
    """

    def __init__(
        self,
        room: RoomContext,
        user: User,
        connection_id: str,
        *,
        claims: Mapping[str, str] = NO_CLAIMS,
        subscriber: bool = False,
    ) -> None:
        self.room = room
        self.user = user
        self.connection_id = connection_id
        self.claims = claims
        self.subscriber = subscriber


class LeaveEvent:
    """A user left a room; ``reason`` is one of left, dropped, kicked, closed.

    ``claims`` are those of the user's last connection there, where this process knows it.
    """

    def __init__(
        self, room: RoomContext, user: User, reason: str, *, claims: Mapping[str, str] = NO_CLAIMS
    ) -> None:
        self.room = room
        self.user = user
        self.reason = reason
        self.claims = claims


class MessageEvent:
    """A user sent a message to a room or to the application.

    Without a room that the sender is in, ``room`` is None and ``room_name`` is the name that the client
    sent, or empty. ``on_message`` may change ``data`` before it is published.
    """

    def __init__(
        self,
        room: RoomContext | None,
        user: User,
        connection_id: str,
        name: str,
        data: Any,
        *,
        claims: Mapping[str, str] = NO_CLAIMS,
        replies: Replies | None = None,
        room_name: str = "",
    ) -> None:
        self.room = room
        self.room_name = room_name if room is None else room.name
        self.user = user
        self.connection_id = connection_id
        self.name = name
        self.data = data
        self.claims = claims
        self.reply_data: dict[str, Any] = {}
        self._replies = replies

    def reply(self, data: dict[str, Any]) -> Done:
        """Add data to the reply to the sender.

        The reply is sent before anything that the handler publishes. Awaiting it is optional, so that plain
        ``def`` handlers can call it, too.
        """
        if not isinstance(data, dict):
            raise TypeError(f"Expected a dict as the reply, got {type(data).__name__}.")
        self.reply_data.update(data)
        return Done()

    async def send(self, name: str, data: Any, *, room: str | None = None) -> bool:
        """Send a message to the sender's connection only, from the sender itself.

        ``data`` is any JSON value, or bytes; ``room``, by default that of the message, is the room that the
        message names. Returns False where it was not sent: the connection is slow or closed, or its protocol
        has no such message.
        """
        return await self._sender().send(name, data, room)

    async def send_to_room(self, name: str, data: Any, *, room: str | None = None) -> Message:
        """Publish a message in a room, by default that of the message, as its sender.

        Every member but the sender's connection receives it. It is stored and numbered like any message, and
        calls no handler. Raises RoomNotFound, BadRequest, ReservedEvent, MessageTooLarge; ValueError without
        a room.
        """
        if room is None and self.room is None:
            raise ValueError("Expected the argument room, because this message has no room.")
        return await self._sender().send_to_room(name, data, room)

    async def send_to_user(self, user: str, name: str, data: Any) -> None:
        """Send a message to all connections of a user, by name, as the sender.

        The user is one of the application. Without such a user nothing is sent.
        """
        await self._sender().send_to_user(user, name, data)

    def _sender(self) -> Replies:
        if self._replies is None:
            raise RuntimeError("This event has no connection to send through.")
        return self._replies


class Done:
    """An awaitable that is already complete."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
