"""Rate limits: excess commands get an error, then a close, then a final close."""

from __future__ import annotations

from rooms.concurrency.rate_limits import Limit, OffenceCounter, TokenBucket
from rooms.hub.application import Application
from rooms.hub.connection import Connection, Membership
from rooms.hub.room import Room
from rooms.node.registry import Registry
from rooms.protocol.base import error_event
from rooms.protocol.commands import Command, Send
from rooms.protocol.compat_commands import ApplicationCommand, Disconnect, SendWithoutJoining
from rooms.protocol.errors import CloseCode, RateLimited
from rooms.protocol.events import Error

# This many refused commands within the window close the connection; a client that reconnects and does it
# again within that time is closed for good (native protocol, section 10).
MAX_OFFENCES = 3
OFFENCE_WINDOW = 30

# The commands that a room's own rate limits.
_MESSAGES = (Send, SendWithoutJoining)


class Throttle:
    """``rate`` and ``burst`` are those of connections that are in no application."""

    def __init__(self, registry: Registry, rate: int = 0, burst: int = 0) -> None:
        self._registry = registry
        self._outside: Limit = None, rate, burst
        self._refused = OffenceCounter(OFFENCE_WINDOW)
        self._closed = OffenceCounter(OFFENCE_WINDOW)

    def allows(self, connection: Connection, command: Command | Error | None, cost: float = 1) -> bool:
        """Whether a command may be executed.

        None is a frame without a command; ``cost`` is the number of usual commands that it is worth.
        """
        limit = self._limit(connection, command)
        if (bucket := connection.buckets.get(limit)) is None:
            _, rate, burst = limit
            bucket = connection.buckets[limit] = TokenBucket(rate, burst)
        # A client may always disconnect, and a service that this server connected to may always send.
        return bucket.take(cost) or isinstance(command, Disconnect) or connection.outbound

    def refuse(self, connection: Connection, command: Command | Error | None) -> None:
        """Answer a command that may not be executed."""
        error = RateLimited("Too many commands at once; try again in a moment.")
        id = command.id if isinstance(command, Command) else None
        connection.send(error_event(id, error))
        if self._refused.add(connection.socket) >= MAX_OFFENCES:
            self._close(connection)

    def sweep(self) -> None:
        """Forget what lies outside the window."""
        self._refused.sweep()
        self._closed.sweep()

    def _limit(self, connection: Connection, command: Command | Error | None) -> Limit:
        """Return the limit that applies to a command.

        This is the limit of the connection, or for messages to a room with its own rate, that of
        the room.
        """
        inner = command.command if isinstance(command, ApplicationCommand) else command
        if isinstance(inner, _MESSAGES):
            room = self._room(connection, inner)
            if room is not None and room.config.request_rate is not None:
                return room.config.id, room.config.request_rate, room.config.request_burst
        application: Application | None = connection.entered
        if application is None:
            return self._outside
        return None, application.config.request_rate, application.config.request_burst

    def _room(self, connection: Connection, message: Send | SendWithoutJoining) -> Room | None:
        """The room of a message that may be sent there."""
        membership: Membership[Room] | None = connection.memberships.get(message.room)
        if membership is not None:
            return membership.room
        if isinstance(message, SendWithoutJoining):
            return self._registry.cached_room(connection.application, message.room)
        return None

    def _close(self, connection: Connection) -> None:
        # An anonymous client is another user with each connection.
        user = None if connection.protocol.options.anonymous else connection.user
        client = f"{connection.protocol.name} {connection.address}" if user is None else user.id
        if self._closed.add(f"{connection.application} {client}") > 1:
            connection.close(CloseCode.FLOODING, "Too many commands, again.")
        else:
            connection.close(CloseCode.RATE_LIMITED, "Too many commands.", retry_in=OFFENCE_WINDOW / 3)
