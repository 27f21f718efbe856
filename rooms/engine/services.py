"""What the engine does for code outside: for extensions' handlers and, through ``api.py``, for the site.

May be called from any event loop; the work is done in the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rooms import names
from rooms.engine.directory import LiveApplication
from rooms.engine.management import Management
from rooms.engine.messages import Messages
from rooms.engine.parts import Parts
from rooms.errors import RoomNotFound
from rooms.events import Message, User


class EngineServices:
    """Handed to extensions before the engine is complete; ``serve`` completes it."""

    _parts: Parts
    _management: Management
    _messages: Messages

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def serve(self, parts: Parts, management: Management, messages: Messages) -> None:
        self._parts, self._management, self._messages = parts, management, messages

    def call(self, work: Any) -> Any:
        """Carry out a coroutine in the engine's event loop, from whichever loop is running."""
        if asyncio.get_running_loop() is self._loop:
            return work
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

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

    async def _publish(self, application: str, room: str, data: Any, **options: Any) -> Message:
        live = await self._application(application)
        found = await self._management.room_on_demand(live, names.room_name(room), None)
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

    async def _application(self, name: str) -> LiveApplication:
        live = await self._parts.directory.application(name)
        if live is None:
            raise RoomNotFound(f"There is no application {name}.")
        return live
