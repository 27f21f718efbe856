"""A message between who says it and its room: kept by the history, then answered, then told.

Next in the flow: ``hub/hub.py``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from rooms.histories import Appended, Completion, FutureCompletion
from rooms.hub.connection import Connection
from rooms.node.context import NodeContext
from rooms.node.registry import Room
from rooms.protocol.base import error_event
from rooms.protocol.commands import Command, Send
from rooms.protocol.errors import InternalError, RoomsError
from rooms.protocol.events import Message, Reply
from rooms.protocol.results import SentData
from rooms.protocol.types import User

logger = logging.getLogger("rooms.node")


@dataclass(slots=True, kw_only=True)
class PendingMessage(Completion):
    """``recipients``: None is everybody. Only ``exclude`` does not hear it."""

    parts: NodeContext
    room: Room
    recipients: list[User] | None
    exclude: Connection | None
    volatile: bool
    # Where it is kept, if it is.
    history: str = field(init=False)
    kept: Appended | None = None

    def __post_init__(self) -> None:
        self.history = self.room.record.history

    def complete(self, result: Appended | Exception) -> None:
        if isinstance(result, Appended):
            self.kept = result

    def finish(self) -> None:
        if self.kept is None or self.kept.expired:
            return
        if self.kept.message.seq is not None and self.history != self.room.record.history:
            # The room is kept elsewhere by now, and would take the number for one of those there.
            return
        # Also when the key was used: its first answer may have got lost before the room was told. Those
        # who were told are not told again, because of the number.
        group, message = self.room.group, self.kept.message
        only = None if self.recipients is None else {each.id for each in self.recipients}
        self.parts.hub.group_send(group, message, exclude=self.exclude, only=only, volatile=self.volatile)
        self.parts.bus.publish(group, message, only=only, volatile=self.volatile)


@dataclass(slots=True, kw_only=True)
class ClientMessage(PendingMessage):
    """What a client says. ``data`` is the answer it was given, None where it was refused."""

    connection: Connection
    request: Send
    data: SentData | None = None

    def complete(self, result: Appended | Exception) -> None:
        if isinstance(result, Exception):
            refuse(self.connection, self.request, result)
            return
        self.kept = result
        self.data = SentData(seq=result.message.seq, time=result.message.time)
        self.connection.send(Reply(id=self.request.id, data=self.data))

    def finish(self) -> None:
        try:
            PendingMessage.finish(self)
        finally:
            self.connection.has_answered()


@dataclass(slots=True, kw_only=True)
class ServerMessage(PendingMessage):
    """What the server says. ``told`` is the message, when it has been told."""

    told: FutureCompletion = field(default_factory=FutureCompletion)
    result: Appended | Exception | None = None

    def complete(self, result: Appended | Exception) -> None:
        PendingMessage.complete(self, result)
        self.result = result

    def finish(self) -> None:
        try:
            PendingMessage.finish(self)
        finally:
            self.told.complete(self.result)

    async def message(self) -> Message:
        """The message, when it has been told. Raises what the history raises."""
        kept: Appended = await self.told
        return kept.message


def refuse(connection: Connection, request: Command, error: Exception) -> None:
    """Answer a request that failed."""
    if not isinstance(error, RoomsError):
        name = type(request).__name__
        logger.error("%s failed (connection %s)", name, connection.id, exc_info=error)
        error = InternalError("Something went wrong on the server.")
    connection.send(error_event(request.id, error))
