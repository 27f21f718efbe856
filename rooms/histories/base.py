"""The seam between the engine and the stores of messages.

A store gives each message of a room the next number (1, 2, 3 … without holes, in one *epoch*),
keeps what the room's retention allows, and remembers state messages. Whoever waits for ``append`` is
answered when the message is kept: only then is it acknowledged.
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
    """The stored message. ``duplicate``: its key was used before, nothing was added. ``expired``: the
    original is no longer stored, and ``message`` has only its number and time."""

    message: Message
    duplicate: bool = False
    expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one who joins is told of the past. ``position`` is None where nothing is kept."""

    position: Position | None = None
    messages: list[Message] = field(default_factory=list)
    recovered: bool = False
    state: list[Message] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Messages, oldest first; ``more`` lie beyond in the direction that was asked for."""

    messages: list[Message]
    more: bool


class History(ABC):
    """Every method raises Unavailable when the store does not answer, RoomNotFound when the room is gone."""

    # Whoever sends a key again is answered as they were the first time.
    deduplicates: ClassVar[bool] = True

    @abstractmethod
    def append(self, room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        """Keep a message; with ``state`` also as the room's value for its event (``null`` removes it). A
        sender's ``key`` is remembered as long as the message is kept, and for at least IDEMPOTENCY_TTL.

        ``completion`` gets Appended, or the exception that other methods would raise; completions of one room
        in the order of their numbers. Nothing is raised."""

    @property
    def pending(self) -> int:
        """How many wait for ``append``."""
        return 0

    @abstractmethod
    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        """All that came after ``since`` where that can be told completely, else the newest ``limit``."""

    @abstractmethod
    async def page(self, room: RoomConfig, *, before: int | None, after: int | None, limit: int) -> Page:
        """At most ``limit`` messages between two numbers, neither included: the oldest where
        ``after`` is given, else the newest."""

    @abstractmethod
    async def messages_after(self, room: RoomConfig, seq: int) -> list[Message]:
        """Messages after a number, oldest first, no more than a recovery hands over. Those that
        this process appended are told to their appender before they are told here."""

    @abstractmethod
    async def positions(self, rooms: Sequence[int]) -> dict[int, Position]:
        """Where each of the rooms with these ids stands, as far as there is a number. Many cost little
        more than one."""

    @abstractmethod
    async def find(self, room: RoomConfig, sender: str, key: str) -> SentData | None:
        """Number and time of what a sender (an id) sent with a key, as long as the key is remembered."""

    @abstractmethod
    async def forget(self, room: int) -> None:
        """The room with this id is gone."""

    async def prune(self, *, dry_run: bool = False) -> int:
        """Delete the messages that are kept no longer, in rooms that fell silent too. How many they were,
        or with ``dry_run`` are. Stores that forget by themselves have nothing to do."""
        return 0

    async def close(self) -> None:  # noqa: B027 (some have nothing to let go of)
        """Let go of threads and connections."""


def too_much_state() -> BadRequest:
    """What ``append`` raises for one name too many."""
    return BadRequest(f"A room keeps state under at most {get_settings().max_state_keys} event names.")
