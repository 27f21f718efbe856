"""Fetch messages that the channel layer lost.

The channel layer may lose or delay messages; the history does not. A number that is missing between
others shows at once. That the newest is missing shows when positions are compared, which happens
every few seconds for all rooms of the process together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from rooms.hub.room import Room
from rooms.node.context import NodeContext
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import Message
from rooms.protocol.types import Position

logger = logging.getLogger("rooms.node")

# A missing number may just be late; it is fetched after this many seconds.
GAP_SECONDS = 0.05
# Positions are compared at this interval, give or take two fifths, and up to a second late: no member waits
# longer than 5 s for a message that the layer lost.
CHECK_SECONDS = 2.5


class Recovery:
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        # Rooms whose gaps are being filled, and the number that is to be reached at least.
        self._filling: dict[Room, int] = {}
        # Histories that are being asked for positions.
        self._checking: set[str] = set()

    def fill(self, room: Room, until: int = 0) -> None:
        """Fetch missing messages, up to ``until`` or between others.

        Messages that arrive meanwhile are not fetched.
        """
        begun = room in self._filling
        self._filling[room] = max(until, self._filling.get(room, 0))
        if not begun:
            self._context.tasks.spawn(self._fill(room))

    async def check(self) -> None:
        """Compare the positions of the local rooms with those of their histories.

        Local rooms are the rooms of this process.
        """
        by_history: defaultdict[str, list[Room]] = defaultdict(list)
        for room in self._context.registry.rooms():
            if room.position is not None:
                by_history[room.config.history].append(room)
        for name in by_history.keys() - self._checking:
            self._checking.add(name)
            self._context.tasks.spawn(self._check_history(name, by_history[name]))

    async def _check_history(self, name: str, rooms: list[Room]) -> None:
        """Compare the positions of all rooms of one history, in one query.

        A history that is down delays no other.
        """
        try:
            positions = await self._context.histories[name].positions([room.config.id for room in rooms])
            for room in rooms:
                position = positions.get(room.config.id)
                # The room may have another history by now.
                if position is not None and room.config.history == name:
                    self._compare(room, position)
        finally:
            self._checking.discard(name)

    def _compare(self, room: Room, position: Position) -> None:
        if room.epoch is not None and room.epoch != position.epoch:
            self._resync(room)
        elif room.position is not None and room.position < position.seq:
            self.fill(room, position.seq)

    def _resync(self, room: Room) -> None:
        """Close the connections of all members, so that they join again.

        The history lost its messages, and numbers them anew.
        """
        logger.warning("The history of room %s began a new epoch.", room.name)
        room.reset_position()
        for connection in list(room.members):
            connection.close(CloseCode.RESYNC, "The room's history began a new epoch.")

    async def _fill(self, room: Room) -> None:
        history = room.config.history
        try:
            await asyncio.sleep(GAP_SECONDS)
            while not room.removed and (position := self._missing_after(room)) is not None:
                messages = await self._context.histories[room.config.history].messages_after(
                    room.config, position
                )
                if room.config.history != history:
                    # Another history numbers the missing messages differently.
                    return
                self._give_up(room, self._lost_until(room, messages))
                for message in messages:
                    room.broadcast(message)
        except RoomsError as error:
            # The next message of the room finds the gap again, or the next comparison.
            logger.warning("Could not fetch the missing messages of %s: %s", room.key, error.message)
        finally:
            del self._filling[room]

    def _missing_after(self, room: Room) -> int | None:
        """The number after which messages are missing; None when nothing is missing."""
        position = room.position
        if position is not None and position < self._filling[room]:
            return position
        return room.gap_start

    def _lost_until(self, room: Room, messages: Sequence[Message]) -> int:
        """The last number before the first message that can still be sent.

        ``messages`` are all missing ones that the history has; others arrived too early.
        """
        first = [each.seq for each in messages[:1] if each.seq is not None]
        if (earliest := room.earliest_pending) is not None:
            first.append(earliest)
        return min(first) - 1 if first else self._filling[room]

    def _give_up(self, room: Room, until: int) -> None:
        """Close connections that miss messages up to ``until``, so that they join again.

        The history lost these messages.
        """
        if room.position is None:
            # All members left while the history was asked; new ones get snapshots.
            return
        # Numbers that arrived meanwhile are not missing.
        behind = room.members_behind(until)
        if behind:
            logger.warning("Members of room %s missed more than its history has.", room.name)
        for connection in behind:
            connection.close(CloseCode.RESYNC, "More messages were missed than can be recovered.")
        room.advance_to(until)
