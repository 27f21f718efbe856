"""The interface of histories, the stores of messages.

A history gives each message of a room the next sequence number (1, 2, 3 … without holes, in one *epoch*),
stores as many messages as the room's retention allows, and the room's state messages. It completes an
append when the message is stored: only then is the message acknowledged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from rooms.concurrency.batching import Completion
from rooms.conf import get_settings
from rooms.hub.config import RoomConfig
from rooms.protocol.errors import BadRequest
from rooms.protocol.events import Message
from rooms.protocol.results import SentData
from rooms.protocol.types import Position


class Appended(NamedTuple):
    """The result of an append: the message as it is stored.

    ``duplicate``: its key was used before, and nothing was added. ``expired``: that message is no longer
    stored, and ``message`` has only its number and time.
    """

    message: Message
    duplicate: bool = False
    expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The messages of a joining client; without stored ones, no ``position``."""

    position: Position | None = None
    messages: list[Message] = field(default_factory=list)
    recovered: bool = False
    state: list[Message] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Messages, oldest first; ``more``: there are others in the requested direction."""

    messages: list[Message]
    more: bool


class History(ABC):
    """Stores the messages of rooms.

    Every method raises Unavailable when the store does not answer, RoomNotFound when the room was deleted.
    """

    # Whether a key that is sent again gets the result of the first time.
    deduplicates: ClassVar[bool] = True

    @abstractmethod
    def append(self, room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        """Store a message; with ``state``, also as the value of its event.

        The value ``null`` removes the state of the event. A sender's ``key`` is stored as long as the
        message, and for at least IDEMPOTENCY_TTL. ``completion`` gets Appended, or the exception that
        other methods would raise; completions of one room in the order of their numbers. Nothing is
        raised.
        """

    @property
    def pending(self) -> int:
        """The number of appends that are not complete."""
        return 0

    @abstractmethod
    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        """Read all messages after ``since`` if none is missing, else the newest."""

    @abstractmethod
    async def page(self, room: RoomConfig, *, before: int | None, after: int | None, limit: int) -> Page:
        """Read at most ``limit`` messages between two numbers, neither included.

        These are the oldest where ``after`` is given, else the newest.
        """

    @abstractmethod
    async def messages_after(self, room: RoomConfig, seq: int) -> list[Message]:
        """Read the messages after a number, oldest first, up to a maximum.

        Appends of this process are complete before their messages are returned here.
        """

    @abstractmethod
    async def positions(self, rooms: Sequence[int]) -> dict[int, Position]:
        """Read the positions of rooms by id; rooms without messages may be missing.

        Many rooms cost little more than one.
        """

    @abstractmethod
    async def find(self, room: RoomConfig, sender: str, key: str) -> SentData | None:
        """Find the number and time of a message by its sender's id and key."""

    @abstractmethod
    async def forget(self, room: int) -> None:
        """Delete what is stored for a room that was deleted."""

    async def prune(self, *, dry_run: bool = False) -> int:
        """Delete expired messages, in inactive rooms too, and return their number.

        With ``dry_run`` they are only counted. Stores that expire messages themselves do nothing.
        """
        return 0

    async def close(self) -> None:  # noqa: B027 (some have nothing to close)
        """Close threads and connections."""


def too_much_state() -> BadRequest:
    """Return the error of an append that exceeds the maximum number of state keys."""
    return BadRequest(f"A room has state for at most {get_settings().max_state_keys} event names.")
