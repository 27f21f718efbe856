"""History in memory: fast, and lost with the process, as its epoch shows."""

from __future__ import annotations

import itertools
import uuid
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

import msgspec

from rooms.concurrency.batching import Completion, complete_alone
from rooms.conf import get_settings
from rooms.histories.base import Appended, History, Page, Snapshot, too_much_state
from rooms.hub.config import RoomConfig
from rooms.protocol import timestamps
from rooms.protocol.errors import RoomsError
from rooms.protocol.events import Message
from rooms.protocol.results import SentData
from rooms.protocol.types import Position

# The maximum number of keys of a room, if it does not store more messages than that.
MAX_KEYS = 10_000


class _Log:
    """The messages, keys and state of one room."""

    __slots__ = ("epoch", "keys", "messages", "room", "seq", "state")

    def __init__(self, room: RoomConfig) -> None:
        # With the latest known retention.
        self.room = room
        self.epoch = uuid.uuid4().hex
        self.seq = 0
        self.messages: deque[Message] = deque()
        # By sender and key, oldest first.
        self.keys: OrderedDict[tuple[str, str], SentData] = OrderedDict()
        self.state: dict[str, Message] = {}

    def expired(self) -> int:
        """Return the number of messages beyond the room's retention."""
        oldest = timestamps.ago(self.room.history_ttl)
        spare = max(0, len(self.messages) - self.room.history_size)
        old = itertools.takewhile(lambda message: message.time < oldest, self.messages)
        return max(spare, sum(1 for _ in old))

    def trim(self) -> int:
        """Delete expired messages and keys, and return the number of the messages."""
        count = self.expired()
        for _ in range(count):
            self.messages.popleft()
        oldest = timestamps.ago(get_settings().idempotency_ttl)
        while self.keys:
            used, first = next(iter(self.keys.items()))
            spare = len(self.keys) > max(MAX_KEYS, self.room.history_size)
            if self.find(first) is not None or not (spare or first.time < oldest):
                break
            del self.keys[used]
        return count

    def find(self, sent: SentData) -> Message | None:
        """Find a message by its number, if it is still stored."""
        index = (sent.seq or 0) - self.seq - 1
        return self.messages[index] if -index <= len(self.messages) else None


class MemoryHistory(History):
    """For one process: another would count its own numbers (a check warns)."""

    def __init__(self) -> None:
        self._logs: dict[int, _Log] = {}

    def append(self, room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        try:
            result: Appended | RoomsError = self._append(room, message, key)
        except RoomsError as error:
            result = error
        complete_alone(completion, result)

    def _append(self, room: RoomConfig, message: Message, key: str | None) -> Appended:
        log = self._log(room)
        used = (message.sender.id if message.sender else "", key) if key is not None else None
        if used is not None and (first := log.keys.get(used)):
            if (stored := log.find(first)) is not None:
                return Appended(stored, duplicate=True)
            original = msgspec.structs.replace(message, seq=first.seq, time=first.time)
            return Appended(original, duplicate=True, expired=True)
        if message.state is True:
            _check_room_for_state(log.state, message)
        log.seq += 1
        # ``data`` may be a view into a whole frame; a copy is stored.
        stored = msgspec.structs.replace(message, seq=log.seq, data=message.data.copy())
        log.messages.append(stored)
        if used is not None:
            log.keys[used] = SentData(seq=stored.seq, time=stored.time)
        if message.state is True:
            _put_state(log.state, stored)
        return Appended(stored)

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        log = self._log(room)
        missed = _missed(log, since)
        recovered = missed is not None and missed <= len(log.messages)
        count = missed if recovered and missed is not None else limit
        return Snapshot(
            position=Position(epoch=log.epoch, seq=log.seq),
            messages=_last(log.messages, count),
            recovered=recovered,
            state=list(log.state.values()),
        )

    async def page(self, room: RoomConfig, *, before: int | None, after: int | None, limit: int) -> Page:
        found = [
            message
            for message in self._log(room).messages
            if (before is None or (message.seq or 0) < before)
            and (after is None or (message.seq or 0) > after)
        ]
        chosen = found[:limit] if after is not None else _last(found, limit)
        return Page(messages=chosen, more=len(found) > limit)

    async def messages_after(self, room: RoomConfig, seq: int) -> list[Message]:
        messages = [message for message in self._log(room).messages if (message.seq or 0) > seq]
        return messages[: get_settings().recovery_max_messages]

    async def positions(self, rooms: Sequence[int]) -> dict[int, Position]:
        known = {room: self._logs[room] for room in rooms if room in self._logs}
        return {room: Position(epoch=log.epoch, seq=log.seq) for room, log in known.items()}

    async def find(self, room: RoomConfig, sender: str, key: str) -> SentData | None:
        return self._log(room).keys.get((sender, key))

    async def forget(self, room: int) -> None:
        self._logs.pop(room, None)

    async def prune(self, *, dry_run: bool = False) -> int:
        return sum(log.expired() if dry_run else log.trim() for log in self._logs.values())

    def _log(self, room: RoomConfig) -> _Log:
        log = self._logs.get(room.id)
        if log is None:
            log = self._logs[room.id] = _Log(room)
        log.room = room
        log.trim()
        return log


def _put_state(state: dict[str, Message], message: Message) -> None:
    """Set the value of an event; ``null`` removes it."""
    if bytes(message.data) == b"null":
        state.pop(message.event, None)
    else:
        state[message.event] = message


def _check_room_for_state(state: dict[str, Message], message: Message) -> None:
    is_new = message.event not in state and bytes(message.data) != b"null"
    if is_new and len(state) >= get_settings().max_state_keys:
        raise too_much_state()


def _missed(log: _Log, since: Position | None) -> int | None:
    """Count the messages after ``since``; None if unknown or too many."""
    if since is None or since.epoch != log.epoch or since.seq > log.seq:
        return None
    missed = log.seq - since.seq
    return missed if missed <= get_settings().recovery_max_messages else None


def _last(messages: Iterable[Message], count: int) -> list[Message]:
    messages = list(messages)
    return messages[max(0, len(messages) - count) :]
