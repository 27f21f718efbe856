"""When a process may take others for dead: not before it is sure that the store was there for them, and
that its clock went as it should.

A store that was away for about a lease, or whose clock was set on, comes back with the leases of many over.
Who is first to renew its own then leaves the others time for theirs; so does a process that begins, since it
cannot know what has been.
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

    def renew(self, left: float | None) -> None:
        """The store has it; by its own clock the old one would still have run for ``left`` seconds. None:
        it knew of none."""
        now = time.monotonic()
        if self._renewed is None or left is None or self._is_odd(now - self._renewed, left):
            self._quiet_until = now + PATIENCE_SECONDS
        self._renewed = now

    def may_sweep(self) -> bool:
        """Whether a lease that is over means that its process is gone."""
        return time.monotonic() >= self._quiet_until

    @staticmethod
    def _is_odd(passed: float, left: float) -> bool:
        # Others may have renewed theirs last a beat or two before this process did.
        was_away = passed > LEASE_SECONDS - PATIENCE_SECONDS
        # One that was shortened, because somebody took this process for dead, looks like that as well.
        clock_jumped = abs(LEASE_SECONDS - passed - left) > BEAT_SECONDS
        return was_away or clock_jumped
