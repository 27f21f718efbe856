"""The seam between the engine and a wire format.

A protocol is a pure codec: it reads frames into the requests of ``events.py`` and writes events
into frames. It does no IO, knows no Django and keeps at most what it must remember of one
connection. To speak another format, write one of these; nothing else changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal, TypeAlias

from msgspec import UNSET

from rooms.protocol.commands import Command
from rooms.protocol.errors import RoomsError
from rooms.protocol.events import Error, Event
from rooms.protocol.types import CommandId

Past: TypeAlias = Literal["nothing", "state", "all"]
PresenceEvents: TypeAlias = Literal["nothing", "each", "digests"]


class Protocol(ABC):
    """One per connection.

    The flags say what the engine does differently for clients of this protocol; each defaults to what
    suits a protocol that knows little.
    """

    # What settings and applications call it.
    name: ClassVar[str]
    # Frames leave as binary rather than as text.
    binary: ClassVar[bool] = False
    # What may stand between frames that leave together as one; None: each leaves by itself.
    separator: ClassVar[bytes | None] = None
    # The WebSocket subprotocol that is echoed when the client offers it.
    subprotocol: ClassVar[str | None] = None
    # Its clients have no names: each becomes a guest who is called as its connection is.
    anonymous: ClassVar[bool] = False
    # Its clients can come back as the same user, so that who drops is waited for.
    resumable: ClassVar[bool] = False
    # A message has its own limit beside the one for frames, where the application names none.
    limits_messages: ClassVar[bool] = False
    # Its clients answer pings of the protocol. Of others the server in front finds out whether they live.
    heartbeat: ClassVar[bool] = False
    # The answer to a join lists every member, however many.
    full_member_list: ClassVar[bool] = False
    # How much of what was said before the answer to a join tells.
    join_history: ClassVar[Past] = "nothing"
    # What its clients hear of who comes and goes: nothing, each, or each in small rooms and digests in large
    # ones. Where a protocol has no word for many at once, ``each`` is what keeps its clients' lists right.
    presence_events: ClassVar[PresenceEvents] = "nothing"
    # To the rates a frame is one request, whatever it asks.
    one_request_per_frame: ClassVar[bool] = True
    # It knows what it answers by the frame that it read last: the next is read when all is answered.
    serial_requests: ClassVar[bool] = False
    # Whoever is logged in hears of rooms that are made and removed, without asking.
    auto_subscribe_room_list: ClassVar[bool] = False
    # A client that is put out of a room is disconnected.
    disconnect_on_removal: ClassVar[bool] = False
    # A room that is not there is another error than one that the client is not in.
    tells_unknown_rooms: ClassVar[bool] = False
    # Its requests are ``Addressed``: a client may be logged in to several applications on one socket.
    multiplexes_applications: ClassVar[bool] = False

    def on_connected(self, connection: str) -> Iterable[Command]:
        """What is to be carried out for a client at once when it is connected (and, if anonymous, logged
        in); ``connection`` is its id."""
        return ()

    def raw(self) -> Protocol:
        """What is spoken instead where the application's extension takes frames as they come."""
        return self

    def for_application(self, application: str) -> Protocol:
        """What is spoken by a client's place in one of the applications that its requests address."""
        return self

    @abstractmethod
    def decode(self, frame: str | bytes) -> Iterable[Command | Error]:
        """What a frame asks, in order. A request that cannot be read is yielded as the Error that
        answers it. Raises ProtocolError, after the good part of the frame, where the connection
        has to end."""

    @abstractmethod
    def encode(self, event: Event | Command) -> bytes | None:
        """The frame that tells this client of ``event``, or None: it is silent about that."""

    def encode_all(self, event: Event | Command) -> list[bytes]:
        """All that tells this client of ``event``: the frame of ``encode``, if there is one, and whatever goes
        after it in frames of its own, because together they would be too long for many clients."""
        frame = self.encode(event)
        return [] if frame is None else [frame]

    @classmethod
    @abstractmethod
    def encode_broadcast(cls, event: Event, application: str) -> bytes | None:
        """The frame that tells every client of a room of ``application``. Stateless, so that it is
        encoded once."""


def error_event(id: CommandId | None, error: RoomsError) -> Error:
    """The answer to a request that failed."""
    return Error(id=UNSET if id is None else id, code=error.code, message=error.message, retry=error.retry)
