"""Rooms that keep no messages. State messages are kept all the same, in the database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rooms.catalogue import RoomRecord
from rooms.events import Message, Position
from rooms.histories.base import Appended, History, Page, Snapshot
from rooms.histories.database import put_state, read_state
from rooms.threads import Pool


class NoHistory(History):
    """Messages have no number here, and there is no past to tell."""

    def __init__(self) -> None:
        self._pool = Pool(2, 256, "rooms-state")

    async def append(self, room: RoomRecord, message: Message, key: str | None = None) -> Appended:
        if message.state is True:
            message = msgspec.structs.replace(message, data=message.data.copy())
            refusal = await self._pool.run(put_state, room, message, None)
            if refusal is not None:
                raise refusal
        return Appended(message)

    async def snapshot(self, room: RoomRecord, since: Position | None, limit: int) -> Snapshot:
        return Snapshot(state=await self._pool.run(read_state, room))

    async def page(self, room: RoomRecord, *, before: int | None, after: int | None, limit: int) -> Page:
        return Page(messages=[], more=False)

    async def after(self, room: RoomRecord, seq: int) -> list[Message]:
        return []

    async def positions(self, rooms: Sequence[int]) -> dict[int, int]:
        return {}

    async def find(self, room: RoomRecord, sender: str, key: str) -> Message | None:
        return None

    async def forget(self, room: int) -> None:
        """State went with the room's row."""

    def close(self) -> None:
        self._pool.close()
