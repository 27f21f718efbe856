"""gowsev: its subscribe/publish service, and raw frames for an extension.

The service has commands in text and answers in binary. A channel is a room, and a subscriber is a member of
it. If the application's extension handles raw frames (``on_receive``), its clients use ``Frames`` instead
of the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from rooms.protocol import payload, validators
from rooms.protocol.base import Protocol, ProtocolOptions
from rooms.protocol.commands import Command, Leave
from rooms.protocol.compat_commands import CompatJoin, LeaveAll, SendRawFrame, SendWithoutJoining
from rooms.protocol.errors import BadRequest, NotMember, RoomNotFound
from rooms.protocol.events import Direct, Error, Event, Message, Reply

OK = b"OK"
INVALID = b"Invalid message"

# White space of the original; Python's own includes U+001C to U+001F.
_BLANKS = "\t\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CHANNEL = re.compile(f"[{_BLANKS}]*([^\n{_BLANKS}]+)")

# The ids of commands, by which their answers are recognised: unsubscribing a channel never fails.
_COMMAND, _UNSUBSCRIBE = "command", "unsubscribe"
_NOT_SUBSCRIBED = frozenset({NotMember.code, RoomNotFound.code})


class Gowsev(Protocol):
    name: ClassVar[str] = "gowsev"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(anonymous=True)
    binary: ClassVar[bool] = True

    def raw(self) -> Protocol:
        return Frames()

    def decode(self, frame: str | bytes) -> Iterator[Command | Error]:
        # Bytes that are not UTF-8 become lone surrogates: invalid in a name, and unchanged in a body.
        text = frame if isinstance(frame, str) else frame.decode(errors="surrogateescape")
        yield _parse(text) or Error(code=BadRequest.code, message=INVALID.decode())

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Reply):
            return OK
        if isinstance(event, Error):
            return OK if event.id == _UNSUBSCRIBE and event.code in _NOT_SUBSCRIBED else INVALID
        return self.encode_broadcast(event, "")

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        # A message outside of rooms would look like one that was published.
        if isinstance(event, Message) or (isinstance(event, Direct) and not event.outside):
            return payload.to_bytes(event.data)
        return None


class Frames(Protocol):
    """Raw frames, passed to the application's extension and sent by it."""

    name: ClassVar[str] = "gowsev"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(anonymous=True)
    binary: ClassVar[bool] = True

    def decode(self, frame: str | bytes) -> Iterator[Command]:
        yield SendRawFrame(data=frame.encode() if isinstance(frame, str) else frame)

    def encode(self, event: Event | Command) -> bytes | None:
        return self.encode_broadcast(event, "")

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        return payload.to_bytes(event.data) if isinstance(event, Direct) and not event.outside else None


def _parse(text: str) -> Command | None:
    """Return the command of a text; None if it is none or its channel is invalid."""
    if text == "unsubscribe-all":
        return LeaveAll(id=_COMMAND)
    command, _, rest = text.partition(":")
    if command == "publish":
        channel, colon, body = rest.partition(":")
        if colon and validators.is_room_name(channel):
            data = payload.from_bytes(body.encode(errors="surrogateescape"))
            return SendWithoutJoining(id=_COMMAND, room=channel, data=data)
    elif command in ("subscribe", "unsubscribe") and (found := _CHANNEL.match(rest)):
        channel = found[1]
        if validators.is_room_name(channel):
            if command == "subscribe":
                return CompatJoin(id=_COMMAND, room=channel)
            return Leave(id=_UNSUBSCRIBE, room=channel)
    return None
