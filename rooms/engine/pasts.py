"""What one who comes in is told of the past, and from which number on the hub tells the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rooms.engine.directory import LiveRoom
from rooms.engine.parts import Parts
from rooms.events import Join, Message, Subscribe
from rooms.histories import Snapshot
from rooms.protocols import Protocol


async def newest(parts: Parts, room: LiveRoom, protocol: Protocol) -> int | None:
    """The number from which on somebody who is told nothing of the past hears everything; None where that is
    settled, because the hub tells the room's events already, or will be by the answer."""
    if protocol.tells_past != "nothing" or parts.hub.position(room.group) is not None:
        return None
    positions = await parts.histories[room.record.history].positions([room.record.id])
    position = positions.get(room.record.id)
    return position.seq if position else 0


async def past_of(
    parts: Parts, room: LiveRoom, protocol: Protocol, request: Join | Subscribe
) -> Snapshot | None:
    """What the answer tells; from there on the hub tells everything. None: it tells nothing."""
    if protocol.tells_past == "nothing":
        return None
    settings, hub = parts.settings, parts.hub
    history = parts.histories[room.record.history]
    limit = settings.join_limit if request.limit is None else request.limit
    limit = min(limit, settings.recovery_limit) if protocol.tells_past == "all" else 0
    runs = hub.position(room.group) is not None
    past = await history.snapshot(room.record, request.since, limit)
    hub.start(room.group, number_of(past))
    if not runs and (hub.position(room.group) or 0) > number_of(past):
        # Somebody else's later answer has started the hub meanwhile, which then told nobody what lies
        # between. Now that it runs, whoever is in the group hears all that comes after.
        past = await history.snapshot(room.record, request.since, limit)
    messages = fitting(past.messages, settings.outbox_bytes)
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
