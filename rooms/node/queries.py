"""Reading what was said in a room, and who is in it: for its members and listeners."""

from __future__ import annotations

from rooms.concurrency.rate_limits import list_limit
from rooms.hub.connection import Connection
from rooms.node.context import NodeContext, room_of
from rooms.node.snapshot import fitting
from rooms.protocol.commands import ListMembers, ReadHistory
from rooms.protocol.events import Message, Reply
from rooms.protocol.results import HistoryData


class RoomQueries:
    def __init__(self, parts: NodeContext) -> None:
        self._parts = parts

    async def history(self, connection: Connection, request: ReadHistory) -> None:
        room = await room_of(self._parts, connection, request.room)
        settings = self._parts.settings
        limit = settings.join_history_limit if request.limit is None else request.limit
        page = await self._parts.histories[room.record.history].page(
            room.record,
            before=request.before,
            after=request.after,
            limit=min(limit, settings.recovery_max_messages),
        )
        messages = self._fitting(page.messages, oldest_first=request.after is not None)
        more = page.more or len(messages) < len(page.messages)
        connection.send(Reply(id=request.id, data=HistoryData(messages=messages, more=more)))

    async def members(self, connection: Connection, request: ListMembers) -> None:
        room = await room_of(self._parts, connection, request.room)
        limit = list_limit(request.limit)
        page = await self._parts.presence.members(room.group, after=request.after, limit=limit)
        connection.send(
            Reply(id=request.id, data={"members": page.users, "count": page.count, "more": page.more})
        )

    def _fitting(self, messages: list[Message], *, oldest_first: bool) -> list[Message]:
        """As many as go into one answer, at least one: whoever reads on from there misses nothing."""
        if oldest_first:
            messages = messages[::-1]
        fits = fitting(messages, self._parts.settings.send_queue_max_bytes) or messages[-1:]
        return fits[::-1] if oldest_first else fits
