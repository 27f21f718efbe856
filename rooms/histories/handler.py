"""The histories of a site, by the policy that an application or a room chooses."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from rooms.conf import Backend, load_backend
from rooms.histories.base import History
from rooms.protocol.errors import InternalError, RoomsError

logger = logging.getLogger("rooms.histories")

# The interval between deletions of expired messages; until then, readers do not get them.
PRUNE_SECONDS = 600


class HistoryHandler(dict[str, History]):
    """Creates the histories of ``ROOMS["HISTORIES"]``."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        super().__init__({policy: load_backend(backend) for policy, backend in backends.items()})

    def __missing__(self, policy: str) -> History:
        logger.error('Got the history policy %r. ROOMS["HISTORIES"] has: %s.', policy, ", ".join(self))
        raise InternalError("The history of this room is not configured.")

    async def prune(self, *, dry_run: bool = False) -> int:
        """Delete expired messages and return their number; ``dry_run``: count only."""
        pruned = 0
        for policy, history in self.items():
            try:
                pruned += await history.prune(dry_run=dry_run)
            except RoomsError as error:
                # The other histories are pruned nevertheless.
                logger.warning("Could not prune the history %s: %s", policy, error.message)
        if pruned and not dry_run:
            logger.info("Deleted %s expired messages.", pruned)
        return pruned

    async def close(self) -> None:
        """Close threads and connections."""
        for history in self.values():
            await history.close()
