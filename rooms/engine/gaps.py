"""Fetching what hints left out: the channel layer may lose or delay them, the history does not."""

from __future__ import annotations

import asyncio
import logging

from rooms.engine.parts import Parts
from rooms.errors import RoomsError

logger = logging.getLogger("rooms.engine")

# A number that is missing may just be late; after so long it is fetched.
GAP_SECONDS = 0.05


class Gaps:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._filling: set[str] = set()

    def found(self, group: str) -> None:
        """The hub misses a number of this group: fetch it, unless it comes by itself."""
        if group not in self._filling:
            self._filling.add(group)
            self._parts.tasks.spawn(self._fill(group))

    async def _fill(self, group: str) -> None:
        hub = self._parts.hub
        try:
            await asyncio.sleep(GAP_SECONDS)
            room = self._parts.directory.room_by_group(group)
            while room is not None and (position := hub.missing_after(group)) is not None:
                messages = await self._parts.histories[room.record.history].after(room.record, position)
                if messages and messages[0].seq is not None:
                    # What the history does not keep any more is gone for good.
                    hub.skip(group, messages[0].seq - 1)
                for message in messages:
                    hub.group_send(group, message)
                if not messages:
                    hub.skip_gap(group)
        except RoomsError as error:
            # The next message of the room finds the gap again.
            logger.warning("Could not fetch what is missing in %s: %s", group, error.message)
        finally:
            self._filling.discard(group)
