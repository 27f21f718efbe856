"""History in this process's memory: quick, and gone with the process (which its epoch tells)."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from rooms import clock
from rooms.catalogue import RoomRecord
from rooms.conf import get_settings
from rooms.events import Message, Position
from rooms.histories.base import Appended, History, Page, Snapshot, too_much_state


class _Log:
    __slots__ = ("epoch", "keys", "messages", "seq", "state")

    def __init__(self) -> None:
        self.epoch = uuid.uuid4().hex
        self.seq = 0
        self.messages: deque[tuple[Message, tuple[str, str] | None]] = deque()
        self.keys: dict[tuple[str, str], Message] = {}
        self.state: dict[str, Message] = {}


class MemoryHistory(History):
    """For one process: two of them would count apart (a system check warns)."""

    def __init__(self) -> None:
        self._logs: dict[int, _Log] = {}

    async def append(self, room: RoomRecord, message: Message, key: str | None = None) -> Appended:
        log = self._log(room)
        used = (message.sender.id if message.sender else "", key) if key is not None else None
        if used is not None and (first := log.keys.get(used)):
            return Appended(first, again=True)
        if message.state is True:
            _check_room_for_state(log.state, message)
        log.seq += 1
        # ``data`` may be a view into a whole frame; what is kept for long is a copy.
        kept = msgspec.structs.replace(message, seq=log.seq, data=message.data.copy())
        log.messages.append((kept, used))
        if used is not None:
            log.keys[used] = kept
        if message.state is True:
            _put_state(log.state, kept)
        return Appended(kept)

    async def snapshot(self, room: RoomRecord, since: Position | None, limit: int) -> Snapshot:
        log = self._log(room)
        messages = [message for message, _ in log.messages]
        missed = _missed(log, since)
        recovered = missed is not None and missed <= len(messages)
        count = missed if recovered and missed is not None else limit
        return Snapshot(
            position=Position(epoch=log.epoch, seq=log.seq),
            messages=_last(messages, count),
            recovered=recovered,
            state=list(log.state.values()),
        )

    async def page(self, room: RoomRecord, *, before: int | None, after: int | None, limit: int) -> Page:
        found = [
            message
            for message, _ in self._log(room).messages
            if (before is None or (message.seq or 0) < before)
            and (after is None or (message.seq or 0) > after)
        ]
        chosen = found[:limit] if after is not None else _last(found, limit)
        return Page(messages=chosen, more=len(found) > limit)

    async def after(self, room: RoomRecord, seq: int) -> list[Message]:
        messages = [message for message, _ in self._log(room).messages if (message.seq or 0) > seq]
        return messages[: get_settings().recovery_limit]

    async def positions(self, rooms: Sequence[int]) -> dict[int, int]:
        return {room: self._logs[room].seq for room in rooms if room in self._logs}

    async def find(self, room: RoomRecord, sender: str, key: str) -> Message | None:
        return self._log(room).keys.get((sender, key))

    async def forget(self, room: int) -> None:
        self._logs.pop(room, None)

    def _log(self, room: RoomRecord) -> _Log:
        log = self._logs.setdefault(room.id, _Log())
        oldest = clock.to_wire(datetime.now(UTC) - timedelta(seconds=room.history_seconds))
        # Times on the wire sort as text.
        while log.messages and (len(log.messages) > room.history_count or log.messages[0][0].time < oldest):
            _, used = log.messages.popleft()
            if used is not None:
                log.keys.pop(used, None)
        return log


def _put_state(state: dict[str, Message], message: Message) -> None:
    """A later value takes the place of the first; ``null`` removes it."""
    if bytes(message.data) == b"null":
        state.pop(message.event, None)
    else:
        state[message.event] = message


def _check_room_for_state(state: dict[str, Message], message: Message) -> None:
    is_new = message.event not in state and bytes(message.data) != b"null"
    if is_new and len(state) >= get_settings().state_count:
        raise too_much_state()


def _missed(log: _Log, since: Position | None) -> int | None:
    """How many came after ``since``; None where that cannot be told or is too much to hand over."""
    if since is None or since.epoch != log.epoch or since.seq > log.seq:
        return None
    missed = log.seq - since.seq
    return missed if missed <= get_settings().recovery_limit else None


def _last(messages: Iterable[Message], count: int) -> list[Message]:
    messages = list(messages)
    return messages[max(0, len(messages) - count) :]
