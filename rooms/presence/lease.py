"""When a process may take others for dead: not before it is sure that the store was there for them.

A store that was away for about a lease comes back with the leases of many over. Who is first to renew its
own then leaves the others time for theirs.
"""

from __future__ import annotations

import time

from rooms.presence.base import BEAT_SECONDS, LEASE_SECONDS

# All others have had a beat by then.
PATIENCE_SECONDS = 3 * BEAT_SECONDS


class Lease:
    """That of this process, by its own clock."""

    def __init__(self) -> None:
        self._renewed: float | None = None
        self._quiet_until = 0.0

    @property
    def begun(self) -> bool:
        return self._renewed is not None

    def renew(self) -> None:
        """The store has it."""
        now = time.monotonic()
        # Others may have renewed theirs last a beat or two before this process did.
        if self._renewed is not None and now - self._renewed > LEASE_SECONDS - PATIENCE_SECONDS:
            self._quiet_until = now + PATIENCE_SECONDS
        self._renewed = now

    def may_sweep(self) -> bool:
        """Whether a lease that is over means that its process is gone."""
        return time.monotonic() >= self._quiet_until
