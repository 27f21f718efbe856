"""Commands that only clients of the compatibility protocols have.

The native codec does not decode these, so native clients cannot send them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw

from rooms.protocol.commands import Command, CreateRoom, Join, Send, Subscribe
from rooms.protocol.events import Error
from rooms.protocol.types import Count, CreatePolicy


class CompatJoin(Join, frozen=True, kw_only=True, tag="compat_join"):
    """A join with the options that compatibility protocols need.

    ``create`` is when a missing room is created: never, if the application has rooms on demand, or always.
    ``if_member`` is what happens to a client that is in the room already: a second reply, a second
    announcement to the other members as well, or an error.
    """

    create: CreatePolicy = "on_demand"
    if_member: Literal["reply", "announce", "refuse"] = "reply"


class CompatSubscribe(Subscribe, frozen=True, kw_only=True, tag="compat_subscribe"):
    """A subscription with ``create`` and ``if_member`` as for ``CompatJoin``."""

    create: CreatePolicy = "on_demand"
    if_member: Literal["reply", "refuse"] = "reply"


class CreateOwnedRoom(CreateRoom, frozen=True, kw_only=True, tag="create_owned_room"):
    """Create an unlisted room that closes ``leave_grace`` s after its owner left."""

    leave_grace: Count = 0


class LeaveAll(Command, frozen=True, kw_only=True, tag="leave_all"):
    """Leave every room."""


class SendOriginal(Send, frozen=True, kw_only=True, tag="send_original"):
    """A message with its form in the sender's protocol (see ``Message.original``)."""

    original: Raw | None = None


class SendToRoomOrApplication(Send, frozen=True, kw_only=True, tag="send_to_room_or_application"):
    """A message to a room.

    From a client that is not a member it goes to the application's handler of that event name instead.
    """


class SendWithoutJoining(Send, frozen=True, kw_only=True, tag="send_without_joining"):
    """A message to a room from a client that need not be a member.

    The room must be one that anyone may join. A message to a missing room is dropped.
    """


class SendDirect(Command, frozen=True, kw_only=True, tag="send_direct"):
    """A message to one user of the application, by name.

    The user may be in any rooms or none; ``room`` is only passed on. A message to a missing user is dropped.
    """

    room: str
    event: str
    data: Raw
    to: str


class SendToApplication(Command, frozen=True, kw_only=True, tag="send_to_application"):
    """A message for the application's extension; dropped if that has no handler."""

    data: Raw
    event: str | None = None


class SendRawFrame(Command, frozen=True, kw_only=True, tag="send_raw_frame"):
    """An undecoded frame for the application's extension."""

    data: bytes


class Disconnect(Command, frozen=True, kw_only=True, tag="disconnect"):
    """A request to close the connection."""


class ApplicationCommand(Command, frozen=True, kw_only=True, tag="application_command"):
    """A command for one of the applications of a socket.

    ``command`` is an Error where the frame holds a command that users of this application do not have,
    and None where the client only asks whether there is such an application.
    """

    application: str
    command: Command | Error | None
