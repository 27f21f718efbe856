"""How much anyone may ask: the length of lists, token buckets and counters, on a monotonic clock."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TypeAlias

# Of a list, where its reader names no limit, and whatever limit they name.
LIST_LIMIT = 100
LONGEST_LIST = 1000


def list_limit(wanted: int | None) -> int:
    """How many entries a list gets that is wanted so long; None: its reader does not say."""
    return min(LIST_LIMIT if wanted is None else wanted, LONGEST_LIST)


# The id of the room whose own rate it is, or None, the rate and its burst. A changed rate is another limit,
# and begins at once.
Limit: TypeAlias = tuple[int | None, int, int]


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` saved up. A rate of 0 is without limit."""

    __slots__ = ("_burst", "_clock", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._tokens = self._burst
        self._clock = clock
        self._updated = clock()

    def take(self, tokens: float = 1) -> bool:
        """Take so many tokens, or as many as can be saved up at most; False, and none taken, when there are
        fewer."""
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
        """Nothing was taken lately: it is as good as new."""
        self._refill()
        return self._tokens >= self._burst

    def _refill(self) -> None:
        now = self._clock()
        self._tokens += (now - self._updated) * self._rate
        if self._tokens > self._burst:
            self._tokens = self._burst
        self._updated = now


class OffenceCounter:
    """Counts offences of somebody within a window of seconds."""

    def __init__(self, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._times: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, who: str) -> int:
        """Note an offence; how many there are within the window."""
        now = self._clock()
        recent = [time for time in self._times[who] if now - time < self._window]
        self._times[who] = [*recent, now]
        return len(recent) + 1

    def recent(self, who: str) -> int:
        now = self._clock()
        return sum(1 for time in self._times.get(who, ()) if now - time < self._window)

    def sweep(self) -> None:
        """Forget what lies outside the window."""
        now = self._clock()
        for who in [who for who, times in self._times.items() if now - times[-1] >= self._window]:
            del self._times[who]


class ConnectionCounter:
    """How many connections each address has open."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def add(self, key: str, limit: int) -> bool:
        """Count one more; False, and not counted, when there are ``limit`` already (0: no limit)."""
        if limit and self._open[key] >= limit:
            return False
        self._open[key] += 1
        return True

    def remove(self, key: str) -> None:
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]
