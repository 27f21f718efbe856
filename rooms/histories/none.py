"""Rooms that keep no messages. State messages are kept all the same, in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import msgspec

from rooms.bounds import ANSWER_SECONDS, bounded_reading, bounded_transaction
from rooms.catalogue import RoomRecord
from rooms.errors import BadRequest
from rooms.events import Message, Position, SentData
from rooms.histories.base import Appended, History, Page, Snapshot
from rooms.histories.rows import put_state, read_state
from rooms.threads import Pool
from rooms.together import Together


class NoHistory(History):
    """Messages have no number here, and there is no past to tell."""

    def __init__(self) -> None:
        self._pool = Pool(2, 256, "rooms-state", answer_seconds=ANSWER_SECONDS)
        self._states: Together[int, RoomRecord, list[Message]] = Together(
            partial(self._pool.run, _read_states)
        )

    async def append(self, room: RoomRecord, message: Message, key: str | None = None) -> Appended:
        if message.state is True:
            message = msgspec.structs.replace(message, data=message.data.copy())
            refusal = await self._pool.run(_put_state, room, message)
            if refusal is not None:
                raise refusal
        return Appended(message)

    async def snapshot(self, room: RoomRecord, since: Position | None, limit: int) -> Snapshot:
        return Snapshot(state=await self._states.ask(room.id, room))

    async def page(self, room: RoomRecord, *, before: int | None, after: int | None, limit: int) -> Page:
        return Page(messages=[], more=False)

    async def after(self, room: RoomRecord, seq: int) -> list[Message]:
        return []

    async def positions(self, rooms: Sequence[int]) -> dict[int, Position]:
        return {}

    async def find(self, room: RoomRecord, sender: str, key: str) -> SentData | None:
        return None

    async def forget(self, room: int) -> None:
        """State went with the room's row."""

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close)


def _put_state(room: RoomRecord, message: Message) -> BadRequest | None:
    with bounded_transaction():
        return put_state(room, message, None)


def _read_states(rooms: dict[int, RoomRecord]) -> dict[int, list[Message]]:
    with bounded_reading():
        return {id: read_state(room) for id, room in rooms.items()}
