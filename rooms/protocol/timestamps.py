"""Times on the wire: RFC 3339 in UTC with milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache


def now() -> str:
    """Return the current time as a text for the wire."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03}Z"


def ago(seconds: float) -> str:
    """Return the time ``seconds`` ago. Texts sort as their times do."""
    return to_wire(datetime.now(UTC) - timedelta(seconds=seconds))


def to_wire(moment: datetime) -> str:
    """Return a time as a text for the wire."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_wire(text: str) -> datetime:
    """Return the time that a text of the wire holds."""
    return datetime.fromisoformat(text)


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    # Most messages are sent in the same second as the one before.
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
