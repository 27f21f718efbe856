"""The histories of a site, by the policies that applications and rooms choose."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from rooms.conf import Backend, load_backend
from rooms.histories.base import History
from rooms.protocol.errors import InternalError, RoomsError

logger = logging.getLogger("rooms.histories")

# What is kept no longer is deleted so often. Nobody is told it in the meantime.
PRUNE_SECONDS = 600


class HistoryHandler(dict[str, History]):
    """Made of ``ROOMS["HISTORIES"]``."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        super().__init__({policy: load_backend(backend) for policy, backend in backends.items()})

    def __missing__(self, policy: str) -> History:
        logger.error(
            'A room keeps its history in %r. ROOMS["HISTORIES"] has only: %s.', policy, ", ".join(self)
        )
        raise InternalError("This room's history is not set up.")

    async def prune(self, *, dry_run: bool = False) -> int:
        """Delete the messages that are kept no longer. How many they were, or with ``dry_run`` are."""
        pruned = 0
        for policy, history in self.items():
            try:
                pruned += await history.prune(dry_run=dry_run)
            except RoomsError as error:
                # The others go on.
                logger.warning("The history %s could not be pruned: %s", policy, error.message)
        if pruned and not dry_run:
            logger.info("Deleted %s messages that were kept no longer.", pruned)
        return pruned

    async def close(self) -> None:
        """Let go of threads and connections."""
        for history in self.values():
            await history.close()
