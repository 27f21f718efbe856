"""History in Redis: any number of processes that share one Redis.

It lasts as long as the data of Redis. Every change is one script (``lua.py``), executed wholly or not at
all. A Redis that restarted begins a new epoch: it may have lost the last messages.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from rooms.concurrency.batching import Batcher, Completion, Entry
from rooms.conf import get_settings
from rooms.histories import lua
from rooms.histories.base import Appended, History, Page, Snapshot, too_much_state
from rooms.hub.config import RoomConfig
from rooms.protocol import timestamps
from rooms.protocol.errors import RoomsError, Unavailable
from rooms.protocol.events import Message
from rooms.protocol.results import SentData
from rooms.protocol.types import Position

logger = logging.getLogger("rooms.histories")

# The result of an append that timed out is found by sending its key again.
TIMEOUT = 3
MAX_CONNECTIONS = 16
# The number of rooms whose positions are read at once.
MAX_POSITIONS = 1000
# A round trip takes at most this number of calls.
MAX_CALLS = 256
# More than this number of calls would wait longer than the timeout.
MAX_PENDING = 8192
_FAR = 2**62
_UNAVAILABLE = "The history does not answer; try again in a moment."


class RedisHistory(History):
    """Stores messages in the Redis at ``url``, in keys with ``prefix``."""

    def __init__(self, *, url: str, prefix: str = "rooms") -> None:
        self._prefix = prefix
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=2,
            # A repeated append would be stored twice: only clients with a key may repeat it.
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._append = self._redis.register_script(lua.APPEND)
        self._snapshot = self._redis.register_script(lua.SNAPSHOT)
        self._page = self._redis.register_script(lua.PAGE)
        self._find = self._redis.register_script(lua.FIND)
        self._calls: Batcher[_Call] = Batcher(
            self._send,
            max_items=MAX_CALLS,
            max_pending=MAX_PENDING,
            timeout=TIMEOUT,
            unavailable=_UNAVAILABLE,
        )

    def append(self, room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        used = "" if key is None else _used(message.sender.id if message.sender else "", key)
        arguments = [
            used,
            _entry(message),
            message.time,
            timestamps.ago(get_settings().idempotency_ttl),
            room.history_ttl,
            max(room.history_ttl, get_settings().idempotency_ttl),
            message.event if message.state is True else "",
            "1" if bytes(message.data) == b"null" else "0",
            get_settings().max_state_keys,
        ]
        appended = partial(_appended, room, message)
        call = _Call(self._append, self._keys(room.id), [*_common(room), *arguments], appended)
        self._calls.add(call, completion)

    @property
    def pending(self) -> int:
        return len(self._calls)

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        wanted = ("", 0) if since is None else (since.epoch, since.seq)
        epoch, seq, recovered, entries, state = await self._reply(
            self._snapshot(
                self._keys(room.id), [*_common(room), limit, *wanted, get_settings().recovery_max_messages]
            )
        )
        return Snapshot(
            position=Position(epoch=epoch.decode(), seq=seq),
            messages=_messages(room, seq - len(entries) + 1, entries),
            recovered=bool(recovered),
            state=_state(room, state),
        )

    async def page(self, room: RoomConfig, *, before: int | None, after: int | None, limit: int) -> Page:
        first, more, entries = await self._reply(
            self._page(self._keys(room.id), _between(room, before, after, limit))
        )
        return Page(messages=_messages(room, first, entries), more=bool(more))

    async def messages_after(self, room: RoomConfig, seq: int) -> list[Message]:
        wanted = _between(room, None, seq, get_settings().recovery_max_messages)
        # Behind the appends, so that these are complete first.
        first, _, entries = await self._calls.call(_Call(self._page, self._keys(room.id), wanted))
        return _messages(room, first, entries)

    async def positions(self, rooms: Sequence[int]) -> dict[int, Position]:
        found: dict[int, Position] = {}
        for start in range(0, len(rooms), MAX_POSITIONS):
            chunk = rooms[start : start + MAX_POSITIONS]
            for room, (epoch, seq) in zip(chunk, await self._reply(self._read_positions(chunk)), strict=True):
                if epoch is not None:
                    found[room] = Position(epoch=epoch.decode(), seq=int(seq or 0))
        return found

    async def _read_positions(self, rooms: Sequence[int]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for room in rooms:
                pipeline.hmget(self._keys(room)[0], ["epoch", "seq"])
            return await pipeline.execute()

    async def find(self, room: RoomConfig, sender: str, key: str) -> SentData | None:
        found = await self._reply(self._find(self._keys(room.id), [*_common(room), _used(sender, key)]))
        return SentData(seq=found[0], time=found[1].decode()) if found else None

    async def forget(self, room: int) -> None:
        await self._reply(self._redis.delete(*self._keys(room)))

    async def close(self) -> None:
        await self._calls.drain()
        await self._redis.aclose()

    async def _send(self, entries: Sequence[Entry[_Call]]) -> list[Any]:
        """Send calls in one round trip; return the result or error of each."""
        calls = [entry.item for entry in entries]
        try:
            async with asyncio.timeout(TIMEOUT), self._redis.pipeline(transaction=False) as pipeline:
                sent: set[str] = set()
                for call in calls:
                    # Each script is sent once: a Redis that was just started knows none, and calls that it
                    # refused and that were repeated would lose their turn.
                    known = call.script.sha in sent
                    sent.add(call.script.sha)
                    script = ("EVALSHA", call.script.sha) if known else ("EVAL", call.script.script)
                    pipeline.execute_command(*script, len(call.keys), *call.keys, *call.arguments)
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            # Returned, not raised: what may have been done must not be sent again.
            reason = _unavailable(error) if isinstance(error, RedisError | OSError) else error
            return [reason] * len(calls)
        return [call.result(reply) for call, reply in zip(calls, replies, strict=True)]

    def _keys(self, room: int) -> list[str]:
        return [f"{self._prefix}:history:{room}:{part}" for part in ("meta", "log", "used", "order", "state")]

    async def _reply(self, reply: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await reply
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error


@dataclass(frozen=True, slots=True)
class _Call:
    """A script's call, and how to read its reply."""

    script: AsyncScript
    keys: Sequence[str]
    arguments: Sequence[Any]
    read: Callable[[Any], Any] | None = None

    def result(self, reply: Any) -> Any:
        """What the reply means, or the error that it is."""
        if isinstance(reply, Exception):
            return _unavailable(reply)
        try:
            return reply if self.read is None else self.read(reply)
        except Exception as error:
            return error


def _appended(room: RoomConfig, message: Message, reply: list[Any]) -> Appended | RoomsError:
    if reply[0] == b"full":
        return too_much_state()
    if reply[0] == b"duplicate":
        return Appended(_message(room, reply[1], reply[2]), duplicate=True)
    if reply[0] == b"expired":
        original = msgspec.structs.replace(message, seq=reply[1], time=reply[2].decode())
        return Appended(original, duplicate=True, expired=True)
    # ``data`` may be a view into a whole frame, which must not live as long as the message.
    return Appended(msgspec.structs.replace(message, seq=reply[1], data=message.data.copy()))


def _unavailable(error: Exception) -> Unavailable:
    logger.warning("Redis did not answer: %s", error or "timeout")
    unavailable = Unavailable(_UNAVAILABLE)
    unavailable.__cause__ = error
    return unavailable


def _common(room: RoomConfig) -> list[Any]:
    return [uuid.uuid4().hex, room.history_size, timestamps.ago(room.history_ttl)]


def _between(room: RoomConfig, before: int | None, after: int | None, limit: int) -> list[Any]:
    bounds = [_FAR if before is None else before, -_FAR if after is None else after]
    return [*_common(room), *bounds, limit, "0" if after is None else "1"]


def _used(sender: str, key: str) -> bytes:
    """Encode a key with its sender; JSON has no line ends."""
    return msgspec.json.encode((sender, key))


def _entry(message: Message) -> bytes:
    return message.time.encode() + b"\n" + msgspec.json.encode(message)


def _message(room: RoomConfig, seq: int, entry: bytes) -> Message:
    message = msgspec.json.decode(entry.split(b"\n", 1)[1], type=Message)
    # The room may have been renamed since.
    return msgspec.structs.replace(message, seq=seq, room=room.name)


def _messages(room: RoomConfig, first: int, entries: Sequence[bytes]) -> list[Message]:
    return [_message(room, first + index, entry) for index, entry in enumerate(entries)]


def _state(room: RoomConfig, values: Sequence[bytes]) -> list[Message]:
    """Decode state messages, in the order in which their events were first stored."""
    found: list[tuple[int, Message]] = []
    for value in values:
        first, seq, entry = value.split(b"\n", 2)
        found.append((int(first), _message(room, int(seq), entry)))
    return [message for _, message in sorted(found, key=lambda each: each[0])]
