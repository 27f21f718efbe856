"""The roomer protocol: five length-prefixed fields in a binary frame.

The fields are ``room``, ``event``, ``dst``, ``src`` and ``payload``, each after its length as a big-endian
``uint32``; all but the payload are UTF-8. A client's id is the name of its user, and it is a member of room
``root`` from the start. The original has no frame for errors: a refused command is not answered, except a
join, whose client waits for an answer and receives ``leave_ack``.
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
from rooms.protocol.types import CommandId, CreatePolicy, User

FIELDS = 5
# Direct messages are stored in no table, whose columns set the limit for other events.
MAX_DIRECT_EVENT_LENGTH = 1024
# Django's user names may be longer than those of guests.
MAX_ID_LENGTH = 150

# Events of the server: from a client they could fake joins and leaves.
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
        self._client = ""
        self._rooms: set[str] = set()
        self._ids = count(1)
        # Commands that are not answered yet, by id.
        self._pending: dict[CommandId, CompatJoin | Leave] = {}

    def on_connected(self, connection: str) -> Iterator[Command]:
        self._client = connection
        yield self._join(validators.ROOT_ROOM, create="always")

    def decode(self, frame: str | bytes) -> Iterator[Command | Error]:
        room, event, to, payload = _parse(frame)
        if event in RESERVED or not _is_valid(room, event, to):
            return
        # Before ``dst`` is looked at, because clients of the original send their own id along with both.
        if event == "join":
            yield self._join(room, create="on_demand")
        elif event == "leave":
            yield self._await_answer(Leave(id=next(self._ids), room=room))
        elif to:
            yield SendDirect(room=room, event=event, data=from_bytes(payload), to=to)
        else:
            yield SendToRoomOrApplication(room=room, event=event, data=from_bytes(payload), echo=False)

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Reply):
            return self._encode_reply(event)
        if isinstance(event, Error):
            return self._encode_error(event)
        if isinstance(event, Removed):
            return self._leave_ack(event.room)
        return self.encode_broadcast(event, "")

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        if isinstance(event, Message | Direct) and event.event in RESERVED:
            # Valid in other protocols, but roomer's clients would take it for an event of the server.
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

    # Joins and leaves --------------------------------------------------------------------------------

    def _join(self, room: str, *, create: CreatePolicy) -> Command:
        id = next(self._ids)
        return self._await_answer(CompatJoin(id=id, room=room, create=create, if_member="announce"))

    def _await_answer(self, command: CompatJoin | Leave) -> Command:
        assert command.id is not None
        self._pending[command.id] = command
        return command

    def _encode_reply(self, reply: Reply) -> bytes | None:
        command = None if reply.id is None else self._pending.pop(reply.id, None)
        if isinstance(command, Leave):
            return self._leave_ack(command.room)
        if command is None or not isinstance(reply.data, JoinData):
            return None
        self._rooms.add(command.room)
        members = msgspec.json.encode([user.name for user in reply.data.members])
        return _frame(command.room, "join_ack", "", self._client, members)

    def _encode_error(self, error: Error) -> bytes | None:
        command = None if error.id is UNSET else self._pending.pop(error.id, None)
        if command is None:
            return None
        if isinstance(command, Leave):
            # A client that was no member has left too; one that an extension keeps has not.
            return self._leave_ack(command.room) if error.code == NotMember.code else None
        # A second join that is refused leaves the client in the room.
        return None if command.room in self._rooms else self._leave_ack(command.room)

    def _leave_ack(self, room: str) -> bytes:
        self._rooms.discard(room)
        return _frame(room, "leave_ack", "", self._client, self._client.encode())


def _id_of(user: User | None) -> str:
    return "" if user is None else user.name


def _frame(room: str, event: str, to: str, sender: str, payload: bytes) -> bytes:
    fields = (room.encode(), event.encode(), to.encode(), sender.encode(), payload)
    return b"".join([part for field in fields for part in (_length(len(field)), field)])


def _parse(frame: str | bytes) -> tuple[str, str, str, bytes]:
    """Return room, event, recipient and payload of a frame. Raises ProtocolError.

    The sender is not returned, because the server knows it better.
    """
    if isinstance(frame, str):
        frame = frame.encode(errors="surrogatepass")
    fields: list[bytes] = []
    start = 0
    for _ in range(FIELDS):
        if len(frame) - start < _LENGTH.size:
            raise ProtocolError(f"Expected {FIELDS} fields, each after its length, got {len(fields)}.")
        end = start + _LENGTH.size + _LENGTH.unpack_from(frame, start)[0]
        if end > len(frame):
            raise ProtocolError(f"Got a field up to byte {end} in a frame of {len(frame)} bytes.")
        fields.append(frame[start + _LENGTH.size : end])
        start = end
    if start != len(frame):
        raise ProtocolError(f"Expected nothing after the payload, got {len(frame) - start} bytes.")
    try:
        room, event, to, _ = (field.decode() for field in fields[:-1])
    except UnicodeDecodeError:
        raise ProtocolError("Room, event, dst and src must be UTF-8.") from None
    return room, event, to, fields[-1]


def _is_valid(room: str, event: str, to: str) -> bool:
    """Return whether room, event and recipient are valid in all protocols."""
    if not validators.is_room_name(room) or len(to) > MAX_ID_LENGTH:
        return False
    if to:
        return len(event) <= MAX_DIRECT_EVENT_LENGTH
    return validators.is_event_name(event)
