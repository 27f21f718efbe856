"""Maps messages to rows and back, and reads and writes state in the database.

Rooms without history store their state in the same way.
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
    """Return the id of the sender, empty for the server."""
    return message.sender.id if message.sender else ""


def message_fields(message: Message) -> dict[str, Any]:
    """Return the fields that the rows of messages and of state have in common."""
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
    """A message with this key of this sender exists already."""


def insert(rows: Sequence[Mapping[str, Any]], *, may_conflict: bool = False) -> None:
    """Insert messages, given as the attributes of their rows.

    ``bulk_create`` takes more time than everything else that storing a message costs. Where keys
    ``may_conflict`` with those of other messages, DuplicateKey is raised if they do: that costs less than
    a query before, and an IntegrityError would be logged by PostgreSQL.
    """
    connection = connections[database()]
    fields = [field for field in models.Message._meta.concrete_fields if not field.primary_key]
    table = connection.ops.quote_name(models.Message._meta.db_table)
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    adapted = connection.ops.adapt_datetimefield_value
    max_rows = max(1, connection.ops.bulk_batch_size(fields, rows))
    with connection.cursor() as cursor:
        for start in range(0, len(rows), max_rows):
            part = rows[start : start + max_rows]
            by_column: list[list[Any]] = [
                [adapted(row["time"]) if field.name == "time" else row[field.attname] for row in part]
                for field in fields
            ]
            values: list[Any]
            if connection.vendor == "postgresql":
                # The same statement for any number of rows, without a placeholder for each value.
                placeholders = ", ".join(f"%s::{field.db_type(connection)}[]" for field in fields)
                source, values = f"SELECT * FROM unnest({placeholders})", by_column
            else:
                placeholders = f"({', '.join(['%s'] * len(fields))})"
                source = f"VALUES {', '.join([placeholders] * len(part))}"
                values = [value for row in zip(*by_column, strict=True) for value in row]
            statement = f"INSERT INTO {table} ({columns}) {source}"
            cursor.execute(f"{statement} ON CONFLICT DO NOTHING" if may_conflict else statement, values)
            if cursor.rowcount < len(part):
                raise DuplicateKey


def to_message(
    room: RoomConfig, row: models.Message | models.StateMessage, *, state: bool | None = None
) -> Message:
    """Return the message that a row stores."""
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
    """Set the value of an event; ``null`` removes it.

    Returns an error when the room has too many.
    """
    of_room = models.StateMessage.objects.using(database()).filter(room_id=room.id)
    if bytes(message.data) == b"null":
        of_room.filter(event=message.event).delete()
    else:
        value = {"seq": seq, **message_fields(message)}
        if not of_room.filter(event=message.event).update(**value):
            if of_room.count() >= get_settings().max_state_keys:
                return too_much_state()
            of_room.create(room_id=room.id, **value)
    return None


def read_state(room: RoomConfig) -> list[Message]:
    """Read the state messages of a room, in the order of their first values."""
    # Raw SQL: every join runs this, and building a query set takes four times as long as the query.
    statement = f"SELECT * FROM {models.StateMessage._meta.db_table} WHERE room_id = %s ORDER BY id"
    rows = models.StateMessage.objects.using(database()).raw(statement, [room.id])
    return [to_message(room, row, state=True) for row in rows]
