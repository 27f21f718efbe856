"""What a handler is given: who did what, where, and the means to answer.

Contexts hold no state of the engine; they ask it through ``Services``, from whatever thread or
event loop the handler runs in. A plain ``def`` handler calls their coroutines with
``asgiref.sync.async_to_sync``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any
from typing import Protocol as Structural

from rooms.events import Message, User


class Services(Structural):
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


class RoomContext:
    """A room, as a handler sees it."""

    def __init__(self, services: Services, application: str, name: str) -> None:
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


class ConnectionEvent:
    """Somebody connected, logged in or out, or is gone. ``user`` is None before the login."""

    def __init__(self, application: str, connection: str, address: str, user: User | None) -> None:
        self.application = application
        self.connection = connection
        self.address = address
        self.user = user


class JoinEvent:
    """A user comes into a room; once per user, not per connection."""

    def __init__(self, room: RoomContext, user: User, connection: str) -> None:
        self.room = room
        self.user = user
        self.connection = connection


class LeaveEvent:
    """A user is out of a room; ``reason`` is one of left, dropped, kicked, closed."""

    def __init__(self, room: RoomContext, user: User, reason: str) -> None:
        self.room = room
        self.user = user
        self.reason = reason


class MessageEvent:
    """Somebody says something in a room. ``data`` may be changed before it goes on to the room."""

    def __init__(self, room: RoomContext, user: User, connection: str, name: str, data: Any) -> None:
        self.room = room
        self.user = user
        self.connection = connection
        self.name = name
        self.data = data
        self.answer: dict[str, Any] = {}

    def reply(self, data: dict[str, Any]) -> Replied:
        """Answer the sender alone; the answer goes out before anything the handler publishes.

        May be awaited, and need not be, so that plain ``def`` handlers can use it too.
        """
        if not isinstance(data, dict):
            raise TypeError(f"A reply is a dict, got {type(data).__name__}.")
        self.answer.update(data)
        return Replied()


class Replied:
    """Something already done that may be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
