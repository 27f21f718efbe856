"""Times on the wire: RFC 3339 in UTC with milliseconds, the same text wherever a message appears."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now() -> str:
    """This moment, as the wire has it."""
    return to_wire(datetime.now(UTC))


def ago(seconds: float) -> str:
    """The moment so many seconds ago. Such texts are in the order of the times."""
    return to_wire(datetime.now(UTC) - timedelta(seconds=seconds))


def to_wire(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_wire(time: str) -> datetime:
    return datetime.fromisoformat(time)
