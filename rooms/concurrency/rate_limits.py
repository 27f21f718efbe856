"""Limits of requests: list lengths, token buckets and counters."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TypeAlias

# The length of a list by default, and at most.
LIST_LIMIT = 100
MAX_LIST_LIMIT = 1000


def list_limit(wanted: int | None) -> int:
    """Return the number of entries of a list for a requested limit, if any."""
    return min(LIST_LIMIT if wanted is None else wanted, MAX_LIST_LIMIT)


# The id of the room that has its own rate, or None, the rate and its burst. A changed rate is another limit,
# and applies at once.
Limit: TypeAlias = tuple[int | None, int, int]


class TokenBucket:
    """Gets ``rate`` tokens a second, at most ``burst``; a rate of 0 has no limit."""

    __slots__ = ("_burst", "_clock", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._tokens = self._burst
        self._clock = clock
        self._updated = clock()

    def take(self, tokens: float = 1) -> bool:
        """Take tokens, at most the burst; return False if there are fewer."""
        if self._rate == 0:
            return True
        self._refill()
        if tokens > self._burst:
            tokens = self._burst
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def is_full(self) -> bool:
        """Return whether the bucket is full, as a new one is."""
        self._refill()
        return self._tokens >= self._burst

    def _refill(self) -> None:
        now = self._clock()
        self._tokens += (now - self._updated) * self._rate
        if self._tokens > self._burst:
            self._tokens = self._burst
        self._updated = now


class OffenceCounter:
    """Counts offences by offender within a window of seconds."""

    def __init__(self, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._times: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, offender: str) -> int:
        """Record an offence and return the number of offences within the window."""
        now = self._clock()
        recent = [time for time in self._times[offender] if now - time < self._window]
        self._times[offender] = [*recent, now]
        return len(recent) + 1

    def recent(self, offender: str) -> int:
        """Return the number of offences within the window."""
        now = self._clock()
        return sum(1 for time in self._times.get(offender, ()) if now - time < self._window)

    def sweep(self) -> None:
        """Delete offenders without an offence within the window."""
        now = self._clock()
        old = [key for key, times in self._times.items() if now - times[-1] >= self._window]
        for offender in old:
            del self._times[offender]


class ConnectionCounter:
    """Counts the open connections of each address."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def add(self, key: str, limit: int) -> bool:
        """Count one more connection; return False at the limit (0: no limit)."""
        if limit and self._open[key] >= limit:
            return False
        self._open[key] += 1
        return True

    def remove(self, key: str) -> None:
        """Count one connection less."""
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]
