"""Rooms that keep no messages. State messages are kept all the same, in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from rooms.bounds import ANSWER_SECONDS, bounded_reading, bounded_transaction
from rooms.catalogue import RoomRecord
from rooms.errors import BadRequest
from rooms.events import Message, Position, SentData
from rooms.histories.base import Appended, History, Page, Snapshot
from rooms.histories.rows import put_state, read_state
from rooms.histories.waiting import Waiting, settle
from rooms.threads import Pool
from rooms.together import Together


class NoHistory(History):
    """Messages have no number here, and there is no past to tell."""

    knows_keys = False

    def __init__(self) -> None:
        self._pool = Pool(2, 256, "rooms-state", answer_seconds=ANSWER_SECONDS)
        self._states: Together[int, RoomRecord, list[Message]] = Together(
            partial(self._pool.run, _read_states)
        )
        self._storing: set[asyncio.Future[None]] = set()

    def keep(self, room: RoomRecord, message: Message, key: str | None, waiting: Waiting) -> None:
        if message.state is True:
            storing = asyncio.ensure_future(self._keep_state(room, message, waiting))
            self._storing.add(storing)
            storing.add_done_callback(self._storing.discard)
        else:
            settle(waiting, Appended(message))

    async def _keep_state(self, room: RoomRecord, message: Message, waiting: Waiting) -> None:
        message = msgspec.structs.replace(message, data=message.data.copy())
        try:
            result: Any = await self._pool.run(_put_state, room, message) or Appended(message)
        except Exception as error:
            result = error
        settle(waiting, result)

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
