"""History in the database: any number of processes, one gap-free sequence per room.

A message gets its number from the room's ``Sequence`` row, locked in the transaction that stores
the message: numbers appear in the order of the commits and a rolled-back one is never seen.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from rooms import clock, models
from rooms.catalogue import RoomRecord, database
from rooms.conf import get_settings
from rooms.errors import BadRequest, RoomNotFound, RoomsError, Unavailable
from rooms.events import Message, Position, User
from rooms.histories.base import Appended, History, Page, Snapshot, too_much_state
from rooms.histories.ledger import Ledger
from rooms.threads import Pool

logger = logging.getLogger("rooms.histories")

# Old messages are deleted once in so many appends to a room; readers never see them before.
PRUNE_EVERY = 64


@dataclass(frozen=True, slots=True)
class _Append:
    room: RoomRecord
    message: Message
    key: str | None


class DatabaseHistory(History):
    """The default. Reads go to a few threads, appends to the ledger."""

    def __init__(self, *, threads: int = 4, queue: int = 256) -> None:
        self._pool = Pool(threads, queue, "rooms-history")
        self._ledger: Ledger[_Append] = Ledger(_append_all)

    async def append(self, room: RoomRecord, message: Message, key: str | None = None) -> Appended:
        result: Appended = await _told_plainly(self._ledger.append(_Append(room, message, key)))
        return result

    async def snapshot(self, room: RoomRecord, since: Position | None, limit: int) -> Snapshot:
        return await self._pool.run(_snapshot, room, since, limit)

    async def page(self, room: RoomRecord, *, before: int | None, after: int | None, limit: int) -> Page:
        return await self._pool.run(_page, room, before, after, limit)

    async def after(self, room: RoomRecord, seq: int) -> list[Message]:
        result: list[Message] = await _told_plainly(self._ledger.read(partial(_after, room, seq)))
        return result

    async def positions(self, rooms: Sequence[int]) -> dict[int, int]:
        return await self._pool.run(_positions, rooms)

    async def find(self, room: RoomRecord, sender: str, key: str) -> Message | None:
        return await self._pool.run(_find, room, sender, key)

    async def forget(self, room: int) -> None:
        """The database has forgotten it with the room's row."""

    def close(self) -> None:
        self._ledger.close()
        self._pool.close()


async def _told_plainly(work: Any) -> Any:
    try:
        return await work
    except RoomsError:
        raise
    except (OperationalError, InterfaceError) as error:
        logger.warning("The database did not answer: %s", error)
        raise Unavailable("The database does not answer; try again in a moment.") from error


# Writing, in the ledger's thread -------------------------------------------------------------------


def _append_all(appends: Sequence[_Append]) -> list[Any]:
    by_room: defaultdict[int, list[tuple[int, _Append]]] = defaultdict(list)
    for place, each in enumerate(appends):
        by_room[each.room.id].append((place, each))
    results: list[Any] = [None] * len(appends)
    with transaction.atomic(using=database()):
        # Always in the same order, so that two processes never wait for each other's locks.
        for room_id in sorted(by_room):
            places, of_room = zip(*by_room[room_id], strict=True)
            for place, result in zip(places, _append_to(of_room[0].room, of_room), strict=True):
                results[place] = result
    return results


def _append_to(room: RoomRecord, appends: Sequence[_Append]) -> list[Any]:
    try:
        sequence = _sequence(room, lock=True)
    except RoomNotFound as error:
        return [error] * len(appends)
    first = sequence.seq
    known = _known_keys(room, appends)
    rows: list[models.Message] = []
    results: list[Any] = []
    for each in appends:
        used = (_sender_id(each.message), each.key)
        if each.key is not None and used in known:
            results.append(Appended(known[used], again=True))
            continue
        if each.message.state is True and (refusal := put_state(room, each.message, sequence.seq + 1)):
            results.append(refusal)
            continue
        sequence.seq += 1
        kept = msgspec.structs.replace(each.message, seq=sequence.seq)
        rows.append(models.Message(room_id=room.id, seq=sequence.seq, key=each.key, **_said(kept)))
        rows[-1].state = kept.state is True
        known[used] = kept
        results.append(Appended(kept))
    models.Message.objects.bulk_create(rows)
    models.Sequence.objects.filter(pk=room.id).update(seq=sequence.seq)
    if first // PRUNE_EVERY != sequence.seq // PRUNE_EVERY:
        _expired(room, sequence.seq).delete()
    return results


def _sequence(room: RoomRecord, *, lock: bool = False) -> models.Sequence:
    rows = models.Sequence.objects.select_for_update() if lock else models.Sequence.objects.all()
    found = rows.filter(pk=room.id).first()
    if found is None:
        if not models.Room.objects.filter(pk=room.id).exists():
            raise RoomNotFound(f"There is no room {room.name} any more.")
        models.Sequence.objects.get_or_create(pk=room.id)
        found = rows.get(pk=room.id)
    return found


def _known_keys(room: RoomRecord, appends: Sequence[_Append]) -> dict[tuple[str, str | None], Message]:
    keys = [each.key for each in appends if each.key is not None]
    if not keys:
        return {}
    rows = models.Message.objects.filter(room_id=room.id, key__in=keys)
    return {(row.sender_id, row.key): _message(room, row) for row in rows}


def put_state(room: RoomRecord, message: Message, seq: int | None) -> BadRequest | None:
    """A later value takes the place of the first; ``null`` removes it. Returns why it cannot be kept."""
    of_room = models.StateMessage.objects.filter(room_id=room.id)
    if bytes(message.data) == b"null":
        of_room.filter(event=message.event).delete()
    else:
        value = {"seq": seq, **_said(message)}
        if not of_room.filter(event=message.event).update(**value):
            if of_room.count() >= get_settings().state_count:
                return too_much_state()
            of_room.create(room_id=room.id, **value)
    return None


# Reading -----------------------------------------------------------------------------------------


def _snapshot(room: RoomRecord, since: Position | None, limit: int) -> Snapshot:
    sequence = _sequence(room)
    # Up to the counter and no further: a message that comes now is told live.
    kept = _kept(room, sequence.seq)
    rows: list[models.Message] = []
    recovered = False
    if since is not None and since.epoch == sequence.epoch:
        missed = sequence.seq - since.seq
        if 0 <= missed <= get_settings().recovery_limit:
            rows = list(kept.filter(seq__gt=since.seq).order_by("seq"))
            recovered = len(rows) == missed
    if not recovered:
        rows = list(reversed(kept.order_by("-seq")[:limit]))
    return Snapshot(
        position=Position(epoch=sequence.epoch, seq=sequence.seq),
        messages=[_message(room, row) for row in rows],
        recovered=recovered,
        state=read_state(room),
    )


def _page(room: RoomRecord, before: int | None, after: int | None, limit: int) -> Page:
    found = _kept(room, _sequence(room).seq)
    if before is not None:
        found = found.filter(seq__lt=before)
    if after is not None:
        rows = list(found.filter(seq__gt=after).order_by("seq")[: limit + 1])
        chosen = rows[:limit]
    else:
        rows = list(found.order_by("-seq")[: limit + 1])
        chosen = rows[:limit][::-1]
    return Page(messages=[_message(room, row) for row in chosen], more=len(rows) > limit)


def _after(room: RoomRecord, seq: int) -> list[Message]:
    rows = _kept(room, _sequence(room).seq).filter(seq__gt=seq).order_by("seq")
    return [_message(room, row) for row in rows[: get_settings().recovery_limit]]


def _positions(rooms: Sequence[int]) -> dict[int, int]:
    return dict(models.Sequence.objects.filter(pk__in=rooms).values_list("pk", "seq"))


def _find(room: RoomRecord, sender: str, key: str) -> Message | None:
    row = models.Message.objects.filter(room_id=room.id, sender_id=sender, key=key).first()
    return None if row is None else _message(room, row)


def read_state(room: RoomRecord) -> list[Message]:
    """The room's state messages in the order in which their events were first stored."""
    rows = models.StateMessage.objects.filter(room_id=room.id).order_by("id")
    return [_message(room, row, state=True) for row in rows]


def _kept(room: RoomRecord, newest: int) -> QuerySet[models.Message]:
    return models.Message.objects.filter(
        room_id=room.id,
        seq__lte=newest,
        seq__gt=newest - room.history_count,
        time__gte=timezone.now() - timedelta(seconds=room.history_seconds),
    )


def _expired(room: RoomRecord, newest: int) -> QuerySet[models.Message]:
    oldest = timezone.now() - timedelta(seconds=room.history_seconds)
    return models.Message.objects.filter(
        Q(seq__lte=newest - room.history_count) | Q(time__lt=oldest), room_id=room.id
    )


# Between rows and events ---------------------------------------------------------------------------


def _sender_id(message: Message) -> str:
    return message.sender.id if message.sender else ""


def _said(message: Message) -> dict[str, Any]:
    sender = message.sender
    return {
        "event": message.event,
        "data": bytes(message.data).decode(),
        "sender_id": _sender_id(message),
        "sender_name": sender.name if sender else "",
        "sender_guest": sender.guest if sender else False,
        "time": clock.from_wire(message.time),
        "words": bytes(message.words).decode() if isinstance(message.words, msgspec.Raw) else "",
    }


def _message(
    room: RoomRecord, row: models.Message | models.StateMessage, *, state: bool | None = None
) -> Message:
    if state is None:
        state = isinstance(row, models.Message) and row.state
    return Message(
        room=room.name,
        event=row.event,
        data=msgspec.Raw(row.data.encode()),
        sender=User(name=row.sender_name, id=row.sender_id, guest=row.sender_guest)
        if row.sender_id
        else None,
        seq=row.seq,
        time=clock.to_wire(row.time),
        state=True if state else msgspec.UNSET,
        words=msgspec.Raw(row.words.encode()) if row.words else msgspec.UNSET,
    )
