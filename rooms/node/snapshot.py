"""What one who comes in is told of the past, and from which number on the hub tells the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rooms.histories import Snapshot
from rooms.node.context import NodeContext
from rooms.node.registry import Room
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Join, Subscribe
from rooms.protocol.events import Message
from rooms.protocol.types import Position

# Of a room whose messages have no numbers.
NOWHERE = Position(epoch="", seq=0)


async def newest(parts: NodeContext, room: Room, protocol: Protocol) -> Position | None:
    """The position from which on somebody who is told nothing of the past hears everything; None where that
    is settled, because the hub tells the room's events already, or will be by the answer."""
    if protocol.options.join_history != "none" or parts.hub.position(room.group) is not None:
        return None
    history = parts.histories[room.record.history]
    position = (await history.positions([room.record.id])).get(room.record.id)
    if position is None:
        # Nothing was ever said here. Asked so it begins, and that it began anew can be told later.
        position = (await history.snapshot(room.record, None, 0)).position
    return position or NOWHERE


async def join_snapshot(
    parts: NodeContext, room: Room, protocol: Protocol, request: Join | Subscribe
) -> Snapshot | None:
    """What the answer tells; from there on the hub tells everything. None: it tells nothing."""
    if protocol.options.join_history == "none":
        return None
    settings, hub = parts.settings, parts.hub
    history = parts.histories[room.record.history]
    limit = settings.join_history_limit if request.limit is None else request.limit
    limit = min(limit, settings.recovery_max_messages) if protocol.options.join_history == "all" else 0
    runs = hub.position(room.group) is not None
    past = await history.snapshot(room.record, request.since, limit)
    hub.start(room.group, past.position or NOWHERE)
    if not runs and (hub.position(room.group) or 0) > number_of(past):
        # Somebody else's later answer has started the hub meanwhile, which then told nobody what lies
        # between. Now that it runs, whoever is in the group hears all that comes after.
        past = await history.snapshot(room.record, request.since, limit)
    messages = fitting(past.messages, settings.send_queue_max_bytes)
    if len(messages) < len(past.messages):
        return replace(past, messages=messages, recovered=False)
    return past


def number_of(past: Snapshot) -> int:
    return past.position.seq if past.position else 0


def fitting(messages: Sequence[Message], most: int) -> list[Message]:
    """The newest of these whose data has at most so many bytes together."""
    chosen: list[Message] = []
    for message in reversed(messages):
        most -= len(bytes(message.data))
        if most < 0:
            break
        chosen.append(message)
    return chosen[::-1]
