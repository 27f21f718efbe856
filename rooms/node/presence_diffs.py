"""Telling the members of large rooms once a second who came and who went.

The hub gathers what it hears (``hub/presence_diff.py``); each process tells its own members, with the number of
users as it is after the last change that is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from rooms.node.context import NodeContext

logger = logging.getLogger("rooms.node")

DIGEST_SECONDS = 1.0


class PresenceDiffs:
    def __init__(self, parts: NodeContext) -> None:
        self._parts = parts
        self._waiting: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    def gathers(self, group: str) -> None:
        """Somebody came to this group or went whom its members are to be told of."""
        self._waiting.add(group)
        if self._telling is None:
            self._telling = self._parts.tasks.spawn(self._tell_waiting())

    def stop(self) -> None:
        if self._telling is not None:
            self._telling.cancel()

    async def _tell_waiting(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(DIGEST_SECONDS)
                await self.tell()
        finally:
            self._telling = None

    async def tell(self) -> None:
        """Tell all that waits now."""
        hub = self._parts.hub
        # What comes while the users are counted is told with the next count, which includes it.
        changes = {group: until for group in self._waiting if (until := hub.changed(group)) is not None}
        counts = await self._counts(list(changes))
        for (group, until), count in zip(changes.items(), counts, strict=True):
            hub.tell_changes(group, until, count, self._parts.flusher.flush)
        self._waiting = {group for group in self._waiting if hub.changed(group) is not None}

    async def _counts(self, groups: Sequence[str]) -> list[int]:
        """How many users each group has; as far as is known here, where presence does not answer."""
        try:
            return await self._parts.presence.counts(groups)
        except Exception:
            logger.warning("Large rooms tell their size as it is known here.", exc_info=True)
            return [self._parts.hub.size(group) for group in groups]
