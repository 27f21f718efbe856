"""Stores a message and broadcasts it. Needs no sockets.

A message is validated, stored by the room's history, acknowledged, and then broadcast to the room:
the acknowledgement always goes first. Messages that share a commit are all acknowledged before the
first of them is broadcast.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from rooms.conf import Settings
from rooms.histories import Appended, Completion, FutureCompletion, HistoryHandler, complete_alone
from rooms.hub.config import RoomConfig
from rooms.hub.connection import Connection
from rooms.node.broker import Broker
from rooms.presence import Presence
from rooms.protocol import timestamps, validators
from rooms.protocol.commands import Send
from rooms.protocol.compat_commands import SendOriginal
from rooms.protocol.errors import BadRequest, MessageTooLarge, ReservedEvent, UserNotFound
from rooms.protocol.events import Event, Message
from rooms.protocol.native import RESERVED
from rooms.protocol.types import User


class Target(Protocol):
    """A room that messages are published to.

    It is a room of the hub, or one without members in this process.
    """

    @property
    def config(self) -> RoomConfig: ...

    @property
    def key(self) -> str: ...

    @property
    def name(self) -> str: ...

    def broadcast(
        self,
        event: Event,
        *,
        exclude: Connection | None = None,
        only: Collection[str] | None = None,
        volatile: bool = False,
    ) -> None: ...


@dataclass(slots=True, kw_only=True)
class PendingMessage(Completion):
    """A message until it is stored and broadcast.

    ``recipients``: the users that receive it; None: all. ``exclude`` does not receive it.
    """

    broker: Broker
    room: Target
    recipients: list[User] | None
    exclude: Connection | None
    volatile: bool
    # The history that stores it, if one does.
    history: str = field(init=False)
    stored: Appended | None = None

    def __post_init__(self) -> None:
        self.history = self.room.config.history

    def complete(self, result: Appended | Exception) -> None:
        if isinstance(result, Appended):
            self.stored = result

    def finish(self) -> None:
        """Broadcast the message in every process."""
        stored, room = self.stored, self.room
        if stored is None or stored.expired:
            return
        message = stored.message
        if message.seq is not None and self.history != room.config.history:
            # The room has another history by now, in which the number belongs to another message.
            return
        # A duplicate is broadcast too: the process may have died between the first acknowledgement and
        # the broadcast. Members that have received it are protected by its number.
        only = None if self.recipients is None else {each.id for each in self.recipients}
        room.broadcast(message, exclude=self.exclude, only=only, volatile=self.volatile)
        self.broker.publish(room.key, message, only=only, volatile=self.volatile)


@dataclass(slots=True, kw_only=True)
class ServerMessage(PendingMessage):
    """A message from server code, which waits until it is broadcast."""

    finished: FutureCompletion = field(default_factory=FutureCompletion)
    result: Appended | Exception | None = None

    def complete(self, result: Appended | Exception) -> None:
        PendingMessage.complete(self, result)
        self.result = result

    def finish(self) -> None:
        try:
            PendingMessage.finish(self)
        finally:
            self.finished.complete(self.result)

    async def message(self) -> Message:
        """Wait for the broadcast and return the message. Raises what the history raises."""
        stored: Appended = await self.finished
        return stored.message


class Publisher:
    """Belongs to one event loop."""

    def __init__(
        self, settings: Settings, histories: HistoryHandler, presence: Presence, broker: Broker
    ) -> None:
        self._settings = settings
        self.histories = histories
        self._presence = presence
        self.broker = broker

    async def publish(
        self,
        room: Target,
        data: Any,
        *,
        event: str = validators.DEFAULT_EVENT,
        to: str | Sequence[str] | None = None,
        state: bool = False,
        volatile: bool = False,
        sender: User | None = None,
        exclude: Connection | None = None,
    ) -> Message:
        """Publish a message from server code, as the server or as ``sender``.

        No extension and no permission is asked: the site's code decides. ``exclude`` is the sender's own
        connection, which does not receive it. Raises BadRequest, ReservedEvent, MessageTooLarge,
        UserNotFound for ``to``, and what the history raises.
        """
        command = Send(
            room=room.name,
            data=msgspec.Raw(msgspec.json.encode(data)),
            event=event,
            to=to if to is None or isinstance(to, str) else list(to),
            state=state,
            volatile=volatile,
        )
        check_event_name(event, min_length=1)
        self.check(command, self.max_bytes(room, exclude))
        recipients = None if command.to is None else await self.find_recipients(room, command.to)
        pending = ServerMessage(
            broker=self.broker, room=room, recipients=recipients, exclude=exclude, volatile=volatile
        )
        self.store(command, command.data, sender, pending)
        return await pending.message()

    def max_bytes(self, room: Target, connection: Connection | None) -> int | None:
        """Return the largest size of a message in bytes; None: only frames are limited.

        The application's limit, or the default for protocols that limit messages.
        """
        limit = room.config.application.max_message_bytes
        if limit is None and (connection is None or connection.protocol.options.limits_message_size):
            limit = self._settings.max_message_bytes
        return limit

    def check(self, command: Send, max_bytes: int | None) -> None:
        """Raise MessageTooLarge, or BadRequest for options that exclude each other."""
        size = check_size(command.data, max_bytes)
        if isinstance(command, SendOriginal) and command.original is not None:
            size = max(size, check_size(command.original, max_bytes))
        if command.state:
            if command.to is not None or command.volatile:
                raise BadRequest("A state message is stored for all members: remove to and volatile.")
            if size > self._settings.max_state_bytes:
                raise MessageTooLarge(
                    f"Expected at most {self._settings.max_state_bytes} bytes of state, got {size}."
                )

    async def find_recipients(self, room: Target, to: str | list[str]) -> list[User]:
        """Return the members with these names. Raises UserNotFound if one is missing."""
        names = [to] if isinstance(to, str) else to
        found = await self._presence.find(room.key, names)
        missing = [name for name in names if name not in found]
        if missing:
            raise UserNotFound(f"{missing[0][:64]} is not a member of {room.name}.")
        return list({user.id: user for user in found.values()}.values())

    def store(self, command: Send, data: msgspec.Raw, sender: User | None, pending: PendingMessage) -> None:
        """Hand a message to the history, which completes it.

        Errors that the history can pass to ``pending`` are not raised.
        """
        recipients, config = pending.recipients, pending.room.config
        message = Message(
            room=config.name,
            event=event_name(command),
            data=data,
            original=_original(command, data),
            sender=sender,
            seq=None,
            time=timestamps.now(),
            to=UNSET if recipients is None else [each.name for each in recipients],
            state=True if command.state else UNSET,
        )
        if recipients is not None or command.volatile:
            complete_alone(pending, Appended(message))
        else:
            self.histories[config.history].append(config, message, command.key, pending)


def check_event_name(name: str, min_length: int = 0) -> None:
    """Check an event name of the site's own code. Raises BadRequest, ReservedEvent."""
    if len(name) < min_length or not validators.is_event_name(name):
        raise BadRequest(
            f"Expected an event name of {min_length} to {validators.MAX_EVENT_LENGTH} characters without "
            f"NUL, got {name[:80]!r}."
        )
    if name in RESERVED:
        raise ReservedEvent(f"The event name {name} is reserved by the protocol; choose another name.")


def check_size(data: msgspec.Raw, max_bytes: int | None) -> int:
    """Return the size of a message in bytes. Raises MessageTooLarge."""
    size = len(bytes(data))
    if max_bytes is not None and size > max_bytes:
        raise MessageTooLarge(f"Expected a message of at most {max_bytes} bytes, got {size}.")
    return size


def event_name(command: Any) -> str:
    """Return the event name of a message."""
    name: str | None = command.event
    return validators.DEFAULT_EVENT if name is None else name


def _original(command: Send, data: msgspec.Raw) -> msgspec.Raw | UnsetType:
    # Data that an extension changed replaces the original.
    if isinstance(command, SendOriginal) and command.original is not None and data is command.data:
        return command.original
    return UNSET
