"""The lease of a process, and when it may sweep other processes.

It may not before the store was reachable for the others, with a steady clock. After an outage of about a
lease, or a jump of the store's clock, many leases are expired. The first process that renews its own gives
the others time for theirs; so does a process that starts, because it does not know what happened before.
"""

from __future__ import annotations

import time

from rooms.presence.base import HEARTBEAT_SECONDS, LEASE_TTL

# Within this time, all other processes have a heartbeat.
SWEEP_DELAY = 3 * HEARTBEAT_SECONDS


class Lease:
    """The lease of this process, by its own clock."""

    def __init__(self) -> None:
        self._renewed: float | None = None
        self._sweeps_from = 0.0

    @property
    def begun(self) -> bool:
        return self._renewed is not None

    def renew(self, left: float | None) -> None:
        """Record that the store renewed the lease.

        ``left``: the seconds that the old lease still had by the store's clock; None if there was none.
        """
        now = time.monotonic()
        if self._renewed is None or left is None or self._is_odd(now - self._renewed, left):
            self._sweeps_from = now + SWEEP_DELAY
        self._renewed = now

    def may_sweep(self) -> bool:
        """Return whether an expired lease means that its process is gone."""
        return time.monotonic() >= self._sweeps_from

    @staticmethod
    def _is_odd(passed: float, left: float) -> bool:
        # Other processes may have renewed their leases a heartbeat or two before this one.
        was_away = passed > LEASE_TTL - SWEEP_DELAY
        # A lease that another process shortened looks like a jump, too.
        clock_jumped = abs(LEASE_TTL - passed - left) > HEARTBEAT_SECONDS
        return was_away or clock_jumped
