"""Fetching what hints left out: the channel layer may lose or delay them, the history does not.

A number that is missing between others shows at once. That the newest is missing shows when positions
are compared, which happens every few seconds for all rooms of the process together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from rooms.engine.directory import LiveRoom
from rooms.engine.parts import Parts
from rooms.errors import RoomsError

logger = logging.getLogger("rooms.engine")

# A number that is missing may just be late; after so long it is fetched.
GAP_SECONDS = 0.05
# Positions are compared so often: nobody waits longer for a message whose hint was lost.
CHECK_SECONDS = 5


class Gaps:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # Groups that are being seen to, and how far at least they have to get.
        self._filling: dict[str, int] = {}

    def found(self, group: str, until: int = 0) -> None:
        """The hub misses numbers of this group, up to ``until`` or between others: fetch them, unless they
        come by themselves."""
        begun = group in self._filling
        self._filling[group] = max(until, self._filling.get(group, 0))
        if not begun:
            self._parts.tasks.spawn(self._fill(group))

    async def check(self) -> None:
        """Compare where the groups of this process stand with where their histories do."""
        by_history: defaultdict[str, list[LiveRoom]] = defaultdict(list)
        for group in self._parts.hub.groups():
            room = self._parts.directory.room_by_group(group)
            if room is not None and self._parts.hub.position(group) is not None:
                by_history[room.record.history].append(room)
        for name, rooms in by_history.items():
            positions = await self._parts.histories[name].positions([room.record.id for room in rooms])
            for room in rooms:
                newest, told = positions.get(room.record.id, 0), self._parts.hub.position(room.group)
                if told is not None and told < newest:
                    self.found(room.group, newest)

    async def _fill(self, group: str) -> None:
        hub = self._parts.hub
        try:
            await asyncio.sleep(GAP_SECONDS)
            room = self._parts.directory.room_by_group(group)
            while room is not None and (position := self._missing_after(group)) is not None:
                messages = await self._parts.histories[room.record.history].after(room.record, position)
                if messages and messages[0].seq is not None:
                    # What the history does not keep any more is gone for good.
                    hub.skip(group, messages[0].seq - 1)
                for message in messages:
                    hub.group_send(group, message)
                if not messages:
                    hub.skip_gap(group)
                    hub.skip(group, self._filling[group])
        except RoomsError as error:
            # The next message of the room finds the gap again, or the next comparison.
            logger.warning("Could not fetch what is missing in %s: %s", group, error.message)
        finally:
            del self._filling[group]

    def _missing_after(self, group: str) -> int | None:
        """The number after which the group misses something; None when nothing is missing."""
        position = self._parts.hub.position(group)
        if position is not None and position < self._filling[group]:
            return position
        return self._parts.hub.missing_after(group)
