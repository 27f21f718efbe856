"""Too many requests: first an error, then a close, then a close for good."""

from __future__ import annotations

from rooms.concurrency.rate_limits import Limit, OffenceCounter, TokenBucket
from rooms.hub.connection import Connection
from rooms.node.registry import Registry
from rooms.protocol.base import error_event
from rooms.protocol.commands import Command, Send
from rooms.protocol.compat_commands import ApplicationCommand, Disconnect, SendWithoutJoining
from rooms.protocol.errors import CloseCode, RateLimited
from rooms.protocol.events import Error

# So many refused requests within so many seconds end the connection; whoever comes back and does it
# again within that time is told not to come back (native protocol, section 10).
MOST_STRIKES = 3
STRIKE_SECONDS = 30


# What a room's own rate counts.
_SAID = (Send, SendWithoutJoining)


class Throttle:
    """``rate`` and ``burst`` are those of connections that are in no application."""

    def __init__(self, directory: Registry, rate: int = 0, burst: int = 0) -> None:
        self._directory = directory
        self._outside: Limit = None, rate, burst
        self._strikes = OffenceCounter(STRIKE_SECONDS)
        self._closed = OffenceCounter(STRIKE_SECONDS)

    def allows(self, connection: Connection, request: Command | Error | None, cost: float = 1) -> bool:
        """Whether the request may be carried out. None is a frame that asks nothing; ``cost`` is how many
        usual requests it is worth."""
        limit = self._limit(connection, request)
        if (bucket := connection.buckets.get(limit)) is None:
            _, rate, burst = limit
            bucket = connection.buckets[limit] = TokenBucket(rate, burst)
        # Whoever wants to go is never in the way, and whom this server called itself may speak.
        return bucket.take(cost) or isinstance(request, Disconnect) or connection.dialled

    def refuse(self, connection: Connection, request: Command | Error | None) -> None:
        """Answer one that may not be carried out."""
        error = RateLimited("Too many requests at once; try again in a moment.")
        id = request.id if isinstance(request, Command) else None
        connection.send(error_event(id, error))
        if self._strikes.add(connection.socket) >= MOST_STRIKES:
            self._close(connection)

    def sweep(self) -> None:
        """Forget what lies too far back."""
        self._strikes.sweep()
        self._closed.sweep()

    def _limit(self, connection: Connection, request: Command | Error | None) -> Limit:
        """The connection's own, or that of a room which has its own rate, for messages to it."""
        asked = request.command if isinstance(request, ApplicationCommand) else request
        if isinstance(asked, _SAID):
            room = self._directory.known_room(connection.application, asked.room)
            if (
                room is not None
                and room.record.request_rate is not None
                and (isinstance(asked, SendWithoutJoining) or asked.room in connection.memberships)
            ):
                return room.record.id, room.record.request_rate, room.record.request_burst
        live = self._directory.known_application(connection.application)
        return (None, live.record.request_rate, live.record.request_burst) if live else self._outside

    def _close(self, connection: Connection) -> None:
        # Whom the protocol makes anonymous is somebody else every time.
        user = None if connection.protocol.options.anonymous else connection.user
        who = f"{connection.protocol.name} {connection.address}" if user is None else user.id
        if self._closed.add(f"{connection.application} {who}") > 1:
            connection.close(CloseCode.FLOODING, "Too many requests, again.")
        else:
            connection.close(CloseCode.RATE_LIMITED, "Too many requests.", retry_in=STRIKE_SECONDS / 3)
