"""The roomer protocol: five length-prefixed fields in a binary frame.

A frame is ``room``, ``event``, ``dst``, ``src`` and ``payload``, each a big-endian ``uint32`` length and so
many bytes; all but the payload are UTF-8. A client's id is its user's name, and it is in room ``root`` from
the start. The original has no word for an error: what is refused is silence, and where a client waits for
an answer to its coming in, the answer that it is out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from struct import Struct
from typing import ClassVar

import msgspec
from msgspec import UNSET

from rooms.protocol import validators
from rooms.protocol.base import Protocol, ProtocolOptions
from rooms.protocol.commands import Command, Leave
from rooms.protocol.compat_commands import CompatJoin, SendDirect, SendToRoomOrApplication
from rooms.protocol.errors import NotMember, ProtocolError
from rooms.protocol.events import Direct, Error, Event, Joined, Left, Message, Rejoined, Removed, Reply
from rooms.protocol.payload import from_bytes, to_bytes
from rooms.protocol.results import JoinData
from rooms.protocol.types import CommandId, User

FIELDS = 5
# What is said to one client is kept in no table, whose columns set the other limit.
LONGEST_DIRECT_EVENT = 1024
# Django's user names may be longer than those of guests.
LONGEST_ID = 150

# What only the server says; from a client it could feign that others come and go.
RESERVED = frozenset({"open", "close", "join_ack", "leave_ack", "new_member", "member_left"})

_LENGTH = Struct(">I")
_length = _LENGTH.pack


class Roomer(Protocol):
    name: ClassVar[str] = "roomer"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(
        anonymous=True, full_member_list=True, presence_events="each"
    )
    binary: ClassVar[bool] = True

    def __init__(self) -> None:
        self._self = ""
        self._rooms: set[str] = set()
        self._ids = count(1)
        # What waits for its answer, by id.
        self._asked: dict[CommandId, CompatJoin | Leave] = {}

    def on_connected(self, connection: str) -> Iterator[Command]:
        self._self = connection
        yield self._ask(
            CompatJoin(id=next(self._ids), room=validators.ROOT, create="always", if_member="announce")
        )

    def decode(self, frame: str | bytes) -> Iterator[Command | Error]:
        room, event, to, payload = _read(frame)
        if event in RESERVED or not _is_lawful(room, event, to):
            return
        # First, because clients of the original send their own id along with these two.
        if event == "join":
            yield self._ask(
                CompatJoin(id=next(self._ids), room=room, create="on_demand", if_member="announce")
            )
        elif event == "leave":
            yield self._ask(Leave(id=next(self._ids), room=room))
        elif to:
            yield SendDirect(room=room, event=event, data=from_bytes(payload), to=to)
        else:
            yield SendToRoomOrApplication(room=room, event=event, data=from_bytes(payload), echo=False)

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Reply):
            return self._answer(event)
        if isinstance(event, Error):
            return self._refusal(event)
        if isinstance(event, Removed):
            return self._out(event.room)
        return self.encode_broadcast(event, "")

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        if isinstance(event, Message | Direct) and event.event in RESERVED:
            # Lawful at other doors, but here it would be taken for the server's own word.
            return None
        if isinstance(event, Message):
            to = event.to[0] if event.to is not UNSET and len(event.to) == 1 else ""
            return _frame(event.room, event.event, to, _id_of(event.sender), to_bytes(event.data))
        if isinstance(event, Direct):
            return _frame(event.room, event.event, event.to, _id_of(event.sender), to_bytes(event.data))
        if isinstance(event, Joined | Rejoined):
            return _frame(event.room, "new_member", "", "", event.user.name.encode())
        if isinstance(event, Left):
            return _frame(event.room, "member_left", "", "", event.user.name.encode())
        return None

    # Coming in and going out -------------------------------------------------------------------------

    def _ask(self, command: CompatJoin | Leave) -> Command:
        assert command.id is not None
        self._asked[command.id] = command
        return command

    def _answer(self, reply: Reply) -> bytes | None:
        asked = None if reply.id is None else self._asked.pop(reply.id, None)
        if isinstance(asked, Leave):
            return self._out(asked.room)
        if asked is None or not isinstance(reply.data, JoinData):
            return None
        self._rooms.add(asked.room)
        members = msgspec.json.encode([user.name for user in reply.data.members])
        return _frame(asked.room, "join_ack", "", self._self, members)

    def _refusal(self, error: Error) -> bytes | None:
        asked = None if error.id is UNSET else self._asked.pop(error.id, None)
        if asked is None:
            return None
        if isinstance(asked, Leave):
            # Also one who never was in has left; whoever may not leave stays.
            return self._out(asked.room) if error.code == NotMember.code else None
        # One who was in and comes in again is in still.
        return None if asked.room in self._rooms else self._out(asked.room)

    def _out(self, room: str) -> bytes:
        self._rooms.discard(room)
        return _frame(room, "leave_ack", "", self._self, self._self.encode())


def _id_of(user: User | None) -> str:
    return "" if user is None else user.name


def _frame(room: str, event: str, to: str, sender: str, payload: bytes) -> bytes:
    fields = (room.encode(), event.encode(), to.encode(), sender.encode(), payload)
    return b"".join([part for field in fields for part in (_length(len(field)), field)])


def _read(frame: str | bytes) -> tuple[str, str, str, bytes]:
    """Room, event, recipient and payload; who sent it, the server knows better. Raises ProtocolError."""
    if isinstance(frame, str):
        frame = frame.encode(errors="surrogatepass")
    fields: list[bytes] = []
    start = 0
    for _ in range(FIELDS):
        if len(frame) - start < _LENGTH.size:
            raise ProtocolError(f"A frame has {FIELDS} fields, each after its length, got {len(fields)}.")
        end = start + _LENGTH.size + _LENGTH.unpack_from(frame, start)[0]
        if end > len(frame):
            raise ProtocolError(f"A field ends with the frame, at {len(frame)} bytes, got one up to {end}.")
        fields.append(frame[start + _LENGTH.size : end])
        start = end
    if start != len(frame):
        raise ProtocolError(f"Nothing follows the payload, got {len(frame) - start} bytes.")
    try:
        room, event, to, _ = (field.decode() for field in fields[:-1])
    except UnicodeDecodeError:
        raise ProtocolError("Room, event, dst and src are UTF-8, got other bytes.") from None
    return room, event, to, fields[-1]


def _is_lawful(room: str, event: str, to: str) -> bool:
    """Whether room and event keep the rules for all doors, and the recipient may be there at all."""
    if not validators.is_room_name(room) or len(to) > LONGEST_ID:
        return False
    if to:
        return len(event) <= LONGEST_DIRECT_EVENT
    return validators.is_event_name(event)
