"""The snapshot that a joining client gets, and the position it continues from.

From this position on, the client receives messages live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rooms.histories import Snapshot
from rooms.hub.room import Room
from rooms.node.context import NodeContext
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Join, Subscribe
from rooms.protocol.events import Message
from rooms.protocol.types import Position

# The position of a room whose messages have no numbers.
NO_POSITION = Position(epoch="", seq=0)


async def live_position(context: NodeContext, room: Room, protocol: Protocol) -> Position | None:
    """Return the position from which a client without a snapshot receives messages.

    None where the room has a position in this process already, or the snapshot will give it one.
    """
    if protocol.options.join_history != "none" or room.position is not None:
        return None
    history = context.histories[room.config.history]
    position = (await history.positions([room.config.id])).get(room.config.id)
    if position is None:
        # The room has no messages yet. This read creates its epoch, so that a loss can be detected later.
        position = (await history.snapshot(room.config, None, 0)).position
    return position or NO_POSITION


async def join_snapshot(
    context: NodeContext, room: Room, protocol: Protocol, command: Join | Subscribe
) -> Snapshot | None:
    """Return the snapshot for the join reply; later messages are sent live.

    None: the reply contains no messages.
    """
    if protocol.options.join_history == "none":
        return None
    settings = context.settings
    history = context.histories[room.config.history]
    limit = settings.join_history_limit if command.limit is None else command.limit
    limit = min(limit, settings.recovery_max_messages) if protocol.options.join_history == "all" else 0
    started = room.position is not None
    snapshot = await history.snapshot(room.config, command.since, limit)
    room.start(snapshot.position or NO_POSITION)
    if not started and (room.position or 0) > last_seq(snapshot):
        # A later snapshot of another client started the room meanwhile; no member received the messages in
        # between. From now on every member receives what follows.
        snapshot = await history.snapshot(room.config, command.since, limit)
    messages = newest_that_fit(snapshot.messages, settings.send_queue_max_bytes)
    if len(messages) < len(snapshot.messages):
        return replace(snapshot, messages=messages, recovered=False)
    return snapshot


def last_seq(snapshot: Snapshot) -> int:
    """Return the number of the last message that a snapshot covers."""
    return snapshot.position.seq if snapshot.position else 0


def newest_that_fit(messages: Sequence[Message], max_bytes: int) -> list[Message]:
    """Return the newest messages that fit into ``max_bytes``, oldest first.

    The limit counts the data of all returned messages together.
    """
    chosen: list[Message] = []
    for message in reversed(messages):
        max_bytes -= len(bytes(message.data))
        if max_bytes < 0:
            break
        chosen.append(message)
    return chosen[::-1]
