"""No history: messages are not stored. State messages are, in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from rooms.concurrency.batching import Completion, Lookups, complete_alone
from rooms.concurrency.thread_pool import ThreadPool
from rooms.concurrency.timeouts import STATEMENT_TIMEOUT, bounded_reading, bounded_transaction
from rooms.histories.base import Appended, History, Page, Snapshot
from rooms.histories.queries import put_state, read_state
from rooms.hub.config import RoomConfig
from rooms.models.database import database
from rooms.protocol.errors import BadRequest
from rooms.protocol.events import Message
from rooms.protocol.results import SentData
from rooms.protocol.types import Position


class NoHistory(History):
    """Stores only state messages, without numbers."""

    deduplicates = False

    def __init__(self) -> None:
        self._pool = ThreadPool(2, 256, "rooms-state", timeout=STATEMENT_TIMEOUT)
        self._states: Lookups[int, RoomConfig, list[Message]] = Lookups(partial(self._pool.run, _read_states))
        self._storing: set[asyncio.Future[None]] = set()

    def append(self, room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        if message.state is True:
            storing = asyncio.ensure_future(self._store_state(room, message, completion))
            self._storing.add(storing)
            storing.add_done_callback(self._storing.discard)
        else:
            complete_alone(completion, Appended(message))

    async def _store_state(self, room: RoomConfig, message: Message, completion: Completion) -> None:
        message = msgspec.structs.replace(message, data=message.data.copy())
        try:
            result: Any = await self._pool.run(_put_state, room, message) or Appended(message)
        except Exception as error:
            result = error
        complete_alone(completion, result)

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        return Snapshot(state=await self._states.get(room.id, room))

    async def page(self, room: RoomConfig, *, before: int | None, after: int | None, limit: int) -> Page:
        return Page(messages=[], more=False)

    async def messages_after(self, room: RoomConfig, seq: int) -> list[Message]:
        return []

    async def positions(self, rooms: Sequence[int]) -> dict[int, Position]:
        return {}

    async def find(self, room: RoomConfig, sender: str, key: str) -> SentData | None:
        return None

    async def forget(self, room: int) -> None:
        """Do nothing: the state is deleted with the room's row."""

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close)


def _put_state(room: RoomConfig, message: Message) -> BadRequest | None:
    with bounded_transaction(database()):
        return put_state(room, message, None)


def _read_states(rooms: dict[int, RoomConfig]) -> dict[int, list[Message]]:
    with bounded_reading(database()):
        return {id: read_state(room) for id, room in rooms.items()}
