"""Fetching what hints left out: the channel layer may lose or delay them, the history does not.

A number that is missing between others shows at once. That the newest is missing shows when positions
are compared, which happens every few seconds for all rooms of the process together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from rooms.node.context import NodeContext
from rooms.node.registry import Room
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import Message
from rooms.protocol.types import Position

logger = logging.getLogger("rooms.node")

# A number that is missing may just be late; after so long it is fetched.
GAP_SECONDS = 0.05
# Positions are compared so often, give or take two fifths, and up to a second late: nobody waits longer than
# 5 s for a message whose hint was lost.
CHECK_SECONDS = 2.5


class Recovery:
    def __init__(self, parts: NodeContext) -> None:
        self._parts = parts
        # Groups that are being seen to, and how far at least they have to get.
        self._filling: dict[str, int] = {}
        # Histories that are being asked where they stand.
        self._checking: set[str] = set()

    def found(self, group: str, until: int = 0) -> None:
        """The hub misses numbers of this group, up to ``until`` or between others: fetch them, unless they
        come by themselves."""
        begun = group in self._filling
        self._filling[group] = max(until, self._filling.get(group, 0))
        if not begun:
            self._parts.tasks.spawn(self._fill(group))

    async def check(self) -> None:
        """Compare where the groups of this process stand with where their histories do."""
        by_history: defaultdict[str, list[Room]] = defaultdict(list)
        for group in self._parts.hub.groups():
            room = self._parts.directory.room_by_group(group)
            if room is not None and self._parts.hub.position(group) is not None:
                by_history[room.record.history].append(room)
        for name in by_history.keys() - self._checking:
            self._checking.add(name)
            self._parts.tasks.spawn(self._check_history(name, by_history[name]))

    async def _check_history(self, name: str, rooms: list[Room]) -> None:
        """One question for all rooms of a history; one that does not answer holds up no other's."""
        try:
            positions = await self._parts.histories[name].positions([room.record.id for room in rooms])
            for room in rooms:
                position = positions.get(room.record.id)
                # It may be kept elsewhere by now.
                if position is not None and room.record.history == name:
                    self._compare(room, position)
        finally:
            self._checking.discard(name)

    def _compare(self, room: Room, position: Position) -> None:
        hub = self._parts.hub
        told, epoch = hub.position(room.group), hub.epoch(room.group)
        if epoch is not None and epoch != position.epoch:
            self._begin_anew(room)
        elif told is not None and told < position.seq:
            self.found(room.group, position.seq)

    def _begin_anew(self, room: Room) -> None:
        """The history has lost what it had, and its numbers do not go on from where the room was told: who
        is in it has to come again."""
        logger.warning("The history of room %s began anew.", room.name)
        self._parts.hub.reset(room.group)
        for connection in self._parts.hub.members(room.group):
            connection.close(CloseCode.RESYNC, "The room's history began anew.")

    async def _fill(self, group: str) -> None:
        room = self._parts.directory.room_by_group(group)
        policy = None if room is None else room.record.history
        try:
            await asyncio.sleep(GAP_SECONDS)
            while room is not None and (position := self._missing_after(group)) is not None:
                history = self._parts.histories[room.record.history]
                messages = await history.messages_after(room.record, position)
                if room.record.history != policy:
                    # It is kept elsewhere by now, and what is missing there has other numbers.
                    return
                self._give_up(room, self._gone_until(group, messages))
                for message in messages:
                    self._parts.hub.group_send(group, message)
        except RoomsError as error:
            # The next message of the room finds the gap again, or the next comparison.
            logger.warning("Could not fetch what is missing in %s: %s", group, error.message)
        finally:
            del self._filling[group]

    def _gone_until(self, group: str, messages: Sequence[Message]) -> int:
        """The last number before the first message that can still be told: of these, which are all that the
        history keeps of what is missing, or of what came too early."""
        first = [each.seq for each in messages[:1] if each.seq is not None]
        if (earliest := self._parts.hub.earliest(group)) is not None:
            first.append(earliest)
        return min(first) - 1 if first else self._filling[group]

    def _give_up(self, room: Room, until: int) -> None:
        """Nothing up to this number can be had any more: whoever has not been told it has to come again, and
        hears then that something is missing."""
        hub = self._parts.hub
        if hub.position(room.group) is None:
            # While the history was asked all went, and others come in, who are told by their answers.
            return
        # Numbers that came by themselves meanwhile are not missing.
        missing = hub.behind(room.group, until)
        if missing:
            logger.warning("Members of room %s missed more than its history keeps.", room.name)
        for connection in missing:
            connection.close(CloseCode.RESYNC, "Too much was missed here.")
        hub.skip(room.group, until)

    def _missing_after(self, group: str) -> int | None:
        """The number after which the group misses something; None when nothing is missing."""
        position = self._parts.hub.position(group)
        if position is not None and position < self._filling[group]:
            return position
        return self._parts.hub.missing_after(group)
