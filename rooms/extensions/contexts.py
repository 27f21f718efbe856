"""What a handler is given: who did what, where, and the means to answer.

Contexts hold no state of the engine; they ask it through ``ExtensionServices``, from whatever thread or
event loop the handler runs in. A plain ``def`` handler calls their coroutines with
``asgiref.sync.async_to_sync``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from typing import Protocol as Structural

from rooms.protocol.events import Message
from rooms.protocol.types import User

if TYPE_CHECKING:
    from rooms.extensions.base import Extension


class OutboundHandle(Structural):
    """Another service that an extension dialled. It is dialled again whenever the connection is lost, until
    somebody hangs up or this server closes it for good."""

    @property
    def url(self) -> str: ...

    @property
    def number(self) -> int | None:
        """The number of the connection that there is now; each has a new one. None: there is none."""

    @property
    def closed(self) -> bool:
        """Whether nobody dials it any more."""

    def close(self) -> None:
        """Close it and dial no more. May be called in any thread."""


class ExtensionServices(Structural):
    """What the engine does for a handler."""

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
        self, extension: Extension, url: str, *, protocol: str, headers: Mapping[str, str]
    ) -> OutboundHandle: ...

    def extension_stopped(self, extension: Extension) -> None: ...


class Replies(Structural):
    """What the engine does on behalf of the sender of a message."""

    async def send(self, name: str, data: Any, room: str | None) -> bool: ...

    async def send_to_room(self, name: str, data: Any, room: str | None) -> Message: ...

    async def send_to_user(self, user: str, name: str, data: Any) -> None: ...


class RoomContext:
    """A room, as a handler sees it."""

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
        """Say something in the room, as the server (``from`` is null). ``data`` is anything that
        JSON can hold; ``to``, ``state`` and ``volatile`` are those of the native protocol."""
        return await self._services.publish(
            self.application, self.name, data, event=event, to=to, state=state, volatile=volatile
        )

    async def members(self) -> list[User]:
        """Who is in the room, by name."""
        return await self._services.members(self.application, self.name)

    async def history(self, limit: int = 50) -> list[Message]:
        """The newest messages, oldest first."""
        return await self._services.history(self.application, self.name, limit)


#: Of a connection whose handshake said nothing.
NO_CLAIMS: Mapping[str, str] = MappingProxyType({})


class HandshakeEvent:
    """Somebody wants to connect; nothing has been accepted yet. ``user`` is who is signed in on the site, if
    the handshake came from one of its pages; ``protocol`` is what shall be spoken, ``query`` and ``headers``
    (names in lower case) are what was sent. What a handler writes into ``claims``, texts by name, stands in
    every later event of the connection."""

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
    """Somebody connected, logged in or out, or is gone. ``user`` is None before the login; ``number`` counts
    the connections of the application in this process from 1; ``claims`` is what the handshake said."""

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
    """A frame as a connection sent it; text is its UTF-8."""

    def __init__(self, source: ConnectionEvent, data: bytes) -> None:
        self.application = source.application
        self.connection_id = source.connection_id
        self.number = source.number
        self.user = source.user
        self.claims = source.claims
        self.data = data


class JoinEvent:
    """A user comes into a room; once per user, not per connection. One who only ``listens`` is no member:
    no ``on_leave`` follows."""

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
    """A user is out of a room; ``reason`` is one of left, dropped, kicked, closed. ``claims`` are those of
    the connection that was the user's last one there, if that is known in this process."""

    def __init__(
        self, room: RoomContext, user: User, reason: str, *, claims: Mapping[str, str] = NO_CLAIMS
    ) -> None:
        self.room = room
        self.user = user
        self.reason = reason
        self.claims = claims


class MessageEvent:
    """Somebody says something: in a room, or to the application; then ``room`` is None and ``room_name``
    the name that was said, if one was, of a room that the sender is not in. ``data`` may be changed before
    it goes on to the room."""

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

    def reply(self, data: dict[str, Any]) -> Replied:
        """Answer the sender alone; the answer goes out before anything the handler publishes.

        May be awaited, and need not be, so that plain ``def`` handlers can use it too.
        """
        if not isinstance(data, dict):
            raise TypeError(f"A reply is a dict, got {type(data).__name__}.")
        self.reply_data.update(data)
        return Replied()

    async def send(self, name: str, data: Any, *, room: str | None = None) -> bool:
        """Tell the sender's connection alone, as if the sender said it to itself; ``room`` (by default that
        of the message) is only told. ``data`` is anything that JSON can hold, or bytes. False: it was not
        told, because it is slow or gone or its protocol has no word for that."""
        return await self._through().send(name, data, room)

    async def send_to_room(self, name: str, data: Any, *, room: str | None = None) -> Message:
        """Say something in a room (by default that of the message) as its sender, to everybody but the
        sender's connection. It is kept and numbered as any message; no handler is asked about it. Raises
        RoomNotFound, BadRequest, ReservedEvent, MessageTooLarge; ValueError where there is no room to
        speak to."""
        if room is None and self.room is None:
            raise ValueError("This message came to no room: name the room to send to.")
        return await self._through().send_to_room(name, data, room)

    async def send_to_user(self, user: str, name: str, data: Any) -> None:
        """Tell all connections of one user of the application, by name, as the sender. Where there is no
        such user nobody is told."""
        await self._through().send_to_user(user, name, data)

    def _through(self) -> Replies:
        if self._replies is None:
            raise RuntimeError("This event belongs to no connection, so nothing can be sent through it.")
        return self._replies


class Replied:
    """Something already done that may be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
