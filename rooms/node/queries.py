"""Commands that read a room's history or its members."""

from __future__ import annotations

from rooms.concurrency.rate_limits import list_limit
from rooms.hub.connection import Connection
from rooms.node.context import NodeContext
from rooms.node.snapshot import newest_that_fit
from rooms.protocol.commands import ListMembers, ReadHistory
from rooms.protocol.events import Message, Reply
from rooms.protocol.results import HistoryData


class RoomQueries:
    """Answers members and subscribers."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    async def history(self, connection: Connection, command: ReadHistory) -> None:
        room = (await self._context.require_membership(connection, command.room)).room
        settings = self._context.settings
        limit = settings.join_history_limit if command.limit is None else command.limit
        page = await self._context.histories[room.config.history].page(
            room.config,
            before=command.before,
            after=command.after,
            limit=min(limit, settings.recovery_max_messages),
        )
        messages = self._fit(page.messages, oldest_first=command.after is not None)
        more = page.more or len(messages) < len(page.messages)
        connection.send(Reply(id=command.id, data=HistoryData(messages=messages, more=more)))

    async def members(self, connection: Connection, command: ListMembers) -> None:
        room = (await self._context.require_membership(connection, command.room)).room
        limit = list_limit(command.limit)
        page = await self._context.presence.members(room.key, after=command.after, limit=limit)
        connection.send(
            Reply(id=command.id, data={"members": page.users, "count": page.count, "more": page.more})
        )

    def _fit(self, messages: list[Message], *, oldest_first: bool) -> list[Message]:
        """Return the messages that fit into one reply.

        There is at least one, so that paging always advances.
        """
        if oldest_first:
            messages = messages[::-1]
        fitting = newest_that_fit(messages, self._context.settings.send_queue_max_bytes) or messages[-1:]
        return fitting[::-1] if oldest_first else fitting
