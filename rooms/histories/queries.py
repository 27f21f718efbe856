"""Between messages as they are said and the rows that keep them; and state, in the database.

Rooms without history keep their state in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.db import connections

from rooms import models
from rooms.conf import get_settings
from rooms.histories.base import too_much_state
from rooms.hub.config import RoomConfig
from rooms.models.database import database
from rooms.protocol import timestamps
from rooms.protocol.errors import BadRequest
from rooms.protocol.events import Message
from rooms.protocol.types import User


def sender_id(message: Message) -> str:
    return message.sender.id if message.sender else ""


def said(message: Message) -> dict[str, Any]:
    """The fields that a message and a state message have in common."""
    sender = message.sender
    return {
        "event": message.event,
        "data": bytes(message.data).decode(),
        "sender_id": sender_id(message),
        "sender_name": sender.name if sender else "",
        "sender_guest": sender.guest if sender else False,
        "time": timestamps.from_wire(message.time),
        "original": bytes(message.original).decode() if isinstance(message.original, msgspec.Raw) else "",
    }


class DuplicateKey(Exception):
    """There is a message with this sender's key already."""


def insert(rows: Sequence[Mapping[str, Any]], *, may_conflict: bool = False) -> None:
    """Store messages, given as the attributes of their rows. ``bulk_create`` does the same, and takes more
    time for it than all else that a message costs on its way into the database.

    Where keys ``may_conflict`` with those of other messages, DuplicateKey is raised if they do. That costs less
    than looking for them before, and on PostgreSQL, unlike an IntegrityError, no line in its log.
    """
    connection = connections[database()]
    fields = [field for field in models.Message._meta.concrete_fields if not field.primary_key]
    table = connection.ops.quote_name(models.Message._meta.db_table)
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    adapted = connection.ops.adapt_datetimefield_value
    most = max(1, connection.ops.bulk_batch_size(fields, rows))
    with connection.cursor() as cursor:
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            by_column: list[list[Any]] = [
                [adapted(row["time"]) if field.name == "time" else row[field.attname] for row in part]
                for field in fields
            ]
            values: list[Any]
            if connection.vendor == "postgresql":
                # A statement that stays the same, and is not gone through for each of a thousand marks.
                marks = ", ".join(f"%s::{field.db_type(connection)}[]" for field in fields)
                source, values = f"SELECT * FROM unnest({marks})", by_column
            else:
                marks = f"({', '.join(['%s'] * len(fields))})"
                source = f"VALUES {', '.join([marks] * len(part))}"
                values = [value for row in zip(*by_column, strict=True) for value in row]
            statement = f"INSERT INTO {table} ({columns}) {source}"
            cursor.execute(f"{statement} ON CONFLICT DO NOTHING" if may_conflict else statement, values)
            if cursor.rowcount < len(part):
                raise DuplicateKey


def message_of(
    room: RoomConfig, row: models.Message | models.StateMessage, *, state: bool | None = None
) -> Message:
    """What a row keeps, as it was said."""
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
        time=timestamps.to_wire(row.time),
        state=True if state else msgspec.UNSET,
        original=msgspec.Raw(row.original.encode()) if row.original else msgspec.UNSET,
    )


def put_state(room: RoomConfig, message: Message, seq: int | None) -> BadRequest | None:
    """A later value takes the place of the first; ``null`` removes it. Returns why it cannot be kept."""
    of_room = models.StateMessage.objects.using(database()).filter(room_id=room.id)
    if bytes(message.data) == b"null":
        of_room.filter(event=message.event).delete()
    else:
        value = {"seq": seq, **said(message)}
        if not of_room.filter(event=message.event).update(**value):
            if of_room.count() >= get_settings().max_state_keys:
                return too_much_state()
            of_room.create(room_id=room.id, **value)
    return None


def read_state(room: RoomConfig) -> list[Message]:
    """The room's state messages in the order in which their events were first stored."""
    # Everybody who comes in asks: putting a query set together takes four times as long as the query.
    statement = f"SELECT * FROM {models.StateMessage._meta.db_table} WHERE room_id = %s ORDER BY id"
    rows = models.StateMessage.objects.using(database()).raw(statement, [room.id])
    return [message_of(room, row, state=True) for row in rows]
