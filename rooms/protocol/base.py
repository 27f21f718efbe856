"""The interface between the node and a wire format.

A protocol is a codec without IO: it decodes frames into the commands of ``commands.py`` and encodes the
events of ``events.py`` into frames. It knows no Django and keeps only the state of one connection that
its format needs. A new wire format is a new subclass of ``Protocol``; nothing else changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from msgspec import UNSET

from rooms.protocol.commands import Command
from rooms.protocol.errors import RoomsError
from rooms.protocol.events import Error, Event
from rooms.protocol.types import CommandId

JoinHistory: TypeAlias = Literal["none", "state", "all"]
PresenceUpdates: TypeAlias = Literal["none", "each", "diffs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolOptions:
    """What the node does differently for clients of one protocol.

    Each default suits a protocol with few features.
    """

    # The WebSocket subprotocol that the handshake accepts if the client offers it.
    subprotocol: str | None = None
    # Clients send no name: each is logged in as a guest with the connection's id as its name.
    anonymous: bool = False
    # A client can reconnect as the same user, so a dropped connection leaves after the grace period only.
    resumable: bool = False
    # Messages have a size limit of their own, beside that of frames, even if the application sets none.
    limits_message_size: bool = False
    # Clients answer pings of the protocol. For others the server detects dead connections.
    heartbeat: bool = False
    # The reply to a join lists all members, whatever their number.
    full_member_list: bool = False
    # Which earlier messages the reply to a join holds.
    join_history: JoinHistory = "none"
    # Which joins and leaves clients receive: none, each, or each in small rooms and diffs in large ones. A
    # protocol without a frame for diffs needs each, so that the member lists of its clients stay right.
    presence_events: PresenceUpdates = "none"
    # A frame counts as one command for the rate limits, whatever it holds.
    one_request_per_frame: bool = True
    # The codec knows only the last frame it read, so the node answers it in full before it reads the next.
    serial_requests: bool = False
    # Each login subscribes the client to the list of rooms.
    auto_subscribe_room_list: bool = False
    # A client that is removed from a room is disconnected.
    disconnect_on_removal: bool = False
    # A missing room is another error than a room that the client is not in.
    reports_missing_rooms: bool = False
    # Commands are ``ApplicationCommand``: a client can log in to several applications on one socket.
    multiplexes_applications: bool = False


class Protocol(ABC):
    """The codec of one connection."""

    # The name in settings and in applications.
    name: ClassVar[str]
    options: ClassVar[ProtocolOptions] = ProtocolOptions()
    # Read at every write, and so no options: whether frames are binary, and what separates frames that
    # are sent as one (None: each frame is sent by itself).
    binary: ClassVar[bool] = False
    separator: ClassVar[bytes | None] = None

    def on_connected(self, connection: str) -> Iterable[Command]:
        """Return the commands to execute once a client is connected.

        An anonymous client is logged in by then; ``connection`` is the connection's id.
        """
        return ()

    def raw(self) -> Protocol:
        """Return the protocol for an extension that handles undecoded frames."""
        return self

    def for_application(self, application: str) -> Protocol:
        """Return the protocol of the client's sub-connection to one of its applications."""
        return self

    @abstractmethod
    def decode(self, frame: str | bytes) -> Iterable[Command | Error]:
        """Yield the commands of a frame, in order.

        A command that cannot be decoded is yielded as the Error that answers it. Raises ProtocolError,
        after the valid part of the frame, if the connection must be closed.
        """

    @abstractmethod
    def encode(self, event: Event | Command) -> bytes | None:
        """Return the frame of an event for this client, or None if there is none."""

    def encode_all(self, event: Event | Command) -> list[bytes]:
        """Return all frames of an event for this client.

        That is the frame of ``encode``, if there is one, followed by frames that are sent by themselves
        because one large frame would be too long for many clients.
        """
        frame = self.encode(event)
        return [] if frame is None else [frame]

    @classmethod
    @abstractmethod
    def encode_broadcast(cls, event: Event, application: str) -> bytes | None:
        """Return the frame of an event for all members of a room of ``application``.

        It depends on no connection, so each event is encoded once per protocol.
        """


def error_event(id: CommandId | None, error: RoomsError) -> Error:
    """Return the Error that answers a failed command."""
    return Error(id=UNSET if id is None else id, code=error.code, message=error.message, retry=error.retry)
