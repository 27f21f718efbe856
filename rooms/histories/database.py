"""History in the database: any number of processes, no gaps in a room.

A message gets its number from the room's ``Sequence`` row, which is locked in the transaction that stores
the message: numbers appear in the order of the commits, and those of a rolled-back transaction are never
read. All reads use the database that is written, never a replica that lags behind.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec
from django.db.models import QuerySet
from django.utils import timezone

from rooms import models
from rooms.concurrency.batching import Batcher, Completion, Entry
from rooms.concurrency.thread_pool import DATABASE_UNAVAILABLE, ThreadPool, WorkerThread
from rooms.concurrency.timeouts import STATEMENT_TIMEOUT, bounded_reading, bounded_transaction
from rooms.conf import get_settings
from rooms.histories import pruning
from rooms.histories.base import Appended, History, Page, Snapshot
from rooms.histories.pruning import Retention
from rooms.histories.queries import (
    DuplicateKey,
    insert,
    message_fields,
    put_state,
    read_state,
    sender_id,
    to_message,
)
from rooms.hub.config import RoomConfig
from rooms.models.database import database
from rooms.protocol import timestamps
from rooms.protocol.errors import RoomNotFound
from rooms.protocol.events import Message
from rooms.protocol.results import SentData
from rooms.protocol.types import Position

T = TypeVar("T")

# The number of appends to a room after which expired messages are deleted; readers never get these.
PRUNE_EVERY = 256
# The maximum number of reads of a state that changes while it is read.
STATE_READS = 5
# The maximum number of values in a query.
MAX_POSITIONS = 10_000
# A transaction holds at most this number of messages: all of them wait for its end.
MAX_MESSAGES = 512
# More than this number of messages would wait longer than the timeout.
MAX_PENDING = 4096
# At the end, the writer's thread has this time for what it is writing.
CLOSE_TIMEOUT = 4.0


@dataclass(frozen=True, slots=True)
class _Append:
    room: RoomConfig
    message: Message
    key: str | None


class DatabaseHistory(History):
    """The default history.

    Reads go to a few threads. One thread writes the messages, many to a transaction; reads that must not
    overtake an append wait their turn there.
    """

    def __init__(self, *, threads: int = 4, queue: int = 256) -> None:
        self._pool = ThreadPool(threads, queue, "rooms-history", timeout=STATEMENT_TIMEOUT)
        self._writer = WorkerThread("rooms-history-writer")
        self._writes: Batcher[Any] = Batcher(
            self._write,
            max_items=MAX_MESSAGES,
            max_pending=MAX_PENDING,
            timeout=STATEMENT_TIMEOUT,
            unavailable=DATABASE_UNAVAILABLE,
        )
        # The last room that an interrupted pruning reached: the next pruning continues after it.
        self._pruned_to = 0

    def append(self, room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        self._writes.add(_Append(room, message, key), completion)

    @property
    def pending(self) -> int:
        return len(self._writes)

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        return await self._pool.run(_read, _snapshot, room, since, limit)

    async def page(self, room: RoomConfig, *, before: int | None, after: int | None, limit: int) -> Page:
        return await self._pool.run(_read, _page, room, before, after, limit)

    async def messages_after(self, room: RoomConfig, seq: int) -> list[Message]:
        read = partial(_read, _after, room, seq)
        result: list[Message] = await self._writes.call(read, alone=True)
        return result

    async def positions(self, rooms: Sequence[int]) -> dict[int, Position]:
        return await self._pool.run(_read, _positions, rooms)

    async def find(self, room: RoomConfig, sender: str, key: str) -> SentData | None:
        return await self._pool.run(_read, _find, room, sender, key)

    async def forget(self, room: int) -> None:
        """Do nothing: the messages are deleted with the room's row."""

    async def prune(self, *, dry_run: bool = False) -> int:
        pruned = 0
        while rooms := await self._pool.run(pruning.some_rooms, self._pruned_to):
            # Before the rooms are pruned: if that times out, the next pruning continues with other rooms.
            self._pruned_to = rooms[-1].room
            for retention in await self._pool.run(pruning.with_expired, rooms):
                if dry_run:
                    pruned += await self._pool.run(pruning.count, retention)
                    continue
                deleted = pruning.CHUNK
                while deleted >= pruning.CHUNK:
                    # In the writer's thread, because the writers of one process need not compete.
                    deleted = await self._writes.call(partial(pruning.prune, retention), alone=True)
                    pruned += deleted
        self._pruned_to = 0
        return pruned

    async def close(self) -> None:
        await self._writes.drain()
        await asyncio.to_thread(self._writer.close, CLOSE_TIMEOUT)
        await asyncio.to_thread(self._pool.close)

    async def _write(self, entries: Sequence[Entry[Any]]) -> list[Any]:
        items = [entry.item for entry in entries]
        if isinstance(items[0], _Append):
            return await self._writer.run(partial(_append_all, items))
        # A read is alone in its batch.
        return [await self._writer.run(items[0])]


# Writing, in the writer's thread --------------------------------------------------------------------


def _append_all(appends: Sequence[_Append]) -> list[Any]:
    try:
        return _append_in_transaction(appends, find_keys=False)
    except DuplicateKey:
        # Rare: nothing was written, and the keys have to be found.
        return _append_in_transaction(appends, find_keys=True)


def _append_in_transaction(appends: Sequence[_Append], *, find_keys: bool) -> list[Any]:
    by_room: defaultdict[int, list[tuple[int, _Append]]] = defaultdict(list)
    for index, each in enumerate(appends):
        by_room[each.room.id].append((index, each))
    results: list[Any] = [None] * len(appends)
    with bounded_transaction(database()):
        # Always in the same order, so that two processes never wait for each other's locks.
        for room_id in sorted(by_room):
            indexes, of_room = zip(*by_room[room_id], strict=True)
            added = _append_to(of_room[0].room, of_room, find_keys=find_keys)
            for index, result in zip(indexes, added, strict=True):
                results[index] = result
    return results


def _append_to(room: RoomConfig, appends: Sequence[_Append], *, find_keys: bool) -> list[Any]:
    """Append to one room. Raises DuplicateKey, unless it finds used keys first."""
    try:
        sequence = _sequence(room, lock=True)
    except RoomNotFound as error:
        return [error] * len(appends)
    first = sequence.seq
    known = _used_keys(room, appends) if find_keys else {}
    rows: list[dict[str, Any]] = []
    results: list[Any] = []
    for each in appends:
        used = (sender_id(each.message), each.key)
        if each.key is not None and used in known:
            results.append(Appended(known[used], duplicate=True))
            continue
        if each.message.state is True and (refusal := put_state(room, each.message, sequence.seq + 1)):
            results.append(refusal)
            continue
        sequence.seq += 1
        stored = msgspec.structs.replace(each.message, seq=sequence.seq)
        row = {"room_id": room.id, "seq": sequence.seq, "key": each.key, "state": stored.state is True}
        rows.append(row | message_fields(stored))
        if each.key is not None:
            known[used] = stored
        results.append(Appended(stored))
    insert(rows, may_conflict=bool(known) and not find_keys)
    models.Sequence.objects.filter(pk=room.id).update(seq=sequence.seq)
    if first // PRUNE_EVERY != sequence.seq // PRUNE_EVERY:
        _retention(room, sequence.seq).delete_some()
    return results


def _sequence(room: RoomConfig, *, lock: bool = False) -> models.Sequence:
    rows = models.Sequence.objects.using(database())
    if lock:
        rows = rows.select_for_update()
    found = rows.filter(pk=room.id).first()
    if found is None:
        if not models.Room.objects.using(database()).filter(pk=room.id).exists():
            raise RoomNotFound(f"The room {room.name} was deleted.")
        models.Sequence.objects.using(database()).get_or_create(pk=room.id)
        # Another process may have created it, and given numbers since.
        found = rows.get(pk=room.id)
    return found


def _used_keys(room: RoomConfig, appends: Sequence[_Append]) -> dict[tuple[str, str | None], Message]:
    keys = {each.key for each in appends if each.key is not None}
    senders = {sender_id(each.message) for each in appends if each.key is not None}
    rows = models.Message.objects.using(database()).filter(
        room_id=room.id, sender_id__in=senders, key__in=keys
    )
    # Without an order: SQLite would scan the whole room in the order of the ids.
    rows = rows.order_by()
    return {(row.sender_id, row.key): to_message(room, row) for row in rows}


# Reading -----------------------------------------------------------------------------------------


def _read(job: Callable[..., T], *arguments: Any) -> T:
    with bounded_reading(database()):
        return job(*arguments)


def _snapshot(room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
    sequence, state = _sequence_and_state(room)
    # Up to the counter and no further: a later message is broadcast.
    stored = _stored(room, sequence.seq)
    rows: list[models.Message] = []
    recovered = False
    if since is not None and since.epoch == sequence.epoch:
        missed = sequence.seq - since.seq
        if 0 <= missed <= get_settings().recovery_max_messages:
            rows = list(stored.filter(seq__gt=since.seq).order_by("seq"))
            recovered = len(rows) == missed
    if not recovered:
        rows = list(reversed(stored.order_by("-seq")[:limit]))
    return Snapshot(
        position=Position(epoch=sequence.epoch, seq=sequence.seq),
        messages=[to_message(room, row) for row in rows],
        recovered=recovered,
        state=state,
    )


def _sequence_and_state(room: RoomConfig) -> tuple[models.Sequence, list[Message]]:
    """Read the room's sequence and its state at that number."""
    for _ in range(STATE_READS):
        sequence, state = _sequence(room), read_state(room)
        if all((each.seq or 0) <= sequence.seq for each in state):
            break
    # A later value is broadcast as well: here it would seem to be older than other messages.
    return sequence, [each for each in state if (each.seq or 0) <= sequence.seq]


def _page(room: RoomConfig, before: int | None, after: int | None, limit: int) -> Page:
    found = _stored(room, _sequence(room).seq)
    if before is not None:
        found = found.filter(seq__lt=before)
    if after is not None:
        rows = list(found.filter(seq__gt=after).order_by("seq")[: limit + 1])
        chosen = rows[:limit]
    else:
        rows = list(found.order_by("-seq")[: limit + 1])
        chosen = rows[:limit][::-1]
    return Page(messages=[to_message(room, row) for row in chosen], more=len(rows) > limit)


def _after(room: RoomConfig, seq: int) -> list[Message]:
    rows = _stored(room, _sequence(room).seq).filter(seq__gt=seq).order_by("seq")
    return [to_message(room, row) for row in rows[: get_settings().recovery_max_messages]]


def _positions(rooms: Sequence[int]) -> dict[int, Position]:
    found: dict[int, Position] = {}
    for start in range(0, len(rooms), MAX_POSITIONS):
        rows = models.Sequence.objects.using(database()).filter(pk__in=rooms[start : start + MAX_POSITIONS])
        for room, epoch, seq in rows.values_list("pk", "epoch", "seq"):
            found[room] = Position(epoch=epoch, seq=seq)
    return found


def _find(room: RoomConfig, sender: str, key: str) -> SentData | None:
    rows = models.Message.objects.using(database()).filter(room_id=room.id, sender_id=sender, key=key)
    found = rows.values_list("seq", "time").first()
    return None if found is None else SentData(seq=found[0], time=timestamps.to_wire(found[1]))


def _stored(room: RoomConfig, newest: int) -> QuerySet[models.Message]:
    return models.Message.objects.using(database()).filter(
        room_id=room.id,
        seq__lte=newest,
        seq__gt=newest - room.history_size,
        time__gte=timezone.now() - timedelta(seconds=room.history_ttl),
    )


def _retention(room: RoomConfig, newest: int) -> Retention:
    return Retention(room=room.id, newest=newest, count=room.history_size, seconds=room.history_ttl)
