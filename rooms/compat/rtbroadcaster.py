"""The rtbroadcaster protocol: one owner, who speaks, and listeners, in JSON.

Every message, in both directions, has the same five fields; ``status.value`` says what it is about.
A room is called by a UUID. What an owner said in its own way (more members, another status text) is
kept as the ``original`` of the message, for listeners of this protocol; everybody else hears the event
``funcKey`` with the list ``funcParams`` as its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar
from uuid import UUID, uuid4

import msgspec
from msgspec import Raw

from rooms.compat.rtbroadcaster_codec import (
    CLOSE,
    CONNECTED,
    JOIN,
    NEW,
    NOT_CONNECTED,
    Sent,
    Status,
    Words,
    read,
    replayed,
    spoken,
    uuid_in,
)
from rooms.protocol import validators
from rooms.protocol.base import Protocol, ProtocolOptions
from rooms.protocol.commands import CloseRoom, Command, Leave
from rooms.protocol.compat_commands import CompatJoin, CreateOwnedRoom, Disconnect, SendOriginal
from rooms.protocol.errors import BadRequest, MessageTooLarge, NotSender, RoomNotFound
from rooms.protocol.events import Closing, Direct, Error, Event, Message, Removed, Reply
from rooms.protocol.results import JoinData

# Where the server says something to one client outside of rooms; roomer's clients hear it in ``root``.
NO_ROOM = frozenset({"", validators.ROOT})

# What requests are called, so that their answers are known.
_OPEN, _ENTER, _SAY, _LEAVE, _CLOSE = "open", "enter", "say", "leave", "close"
_KEEP, _SAY_UNKEPT = "keep", "say unkept"
# Why state may not be kept: it is too long, or too much.
_UNKEPT = frozenset({MessageTooLarge.code, BadRequest.code})

_DASHED = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(rf"(?:urn:uuid:)?({_DASHED})|\{{({_DASHED})\}}|([0-9a-f]{{32}})", re.ASCII | re.IGNORECASE)


_encode = msgspec.json.encode


class Rtbroadcaster(Protocol):
    name: ClassVar[str] = "rtbroadcaster"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(
        anonymous=True, join_history="state", serial_requests=True, disconnect_on_removal=True
    )
    separator: ClassVar[bytes | None] = b"\n"

    def __init__(self) -> None:
        # Where the client is, and the room that it made and owns.
        self._room: str | None = None
        self._made: str | None = None
        # The uuid of the message that is being carried out, as it was sent: answers repeat it.
        self._uuid = ""
        self._granted = False
        # Why what was just said as state is not kept.
        self._unkept: str | None = None
        # The client has been told that this is the end.
        self._told_end = False

    # Reading -----------------------------------------------------------------------------------------

    def decode(self, frame: str | bytes) -> Iterator[Command | Error]:
        try:
            sent = read(frame)
        except BadRequest as error:
            self._uuid = uuid_in(frame)
            yield _fault(error.message)
            return
        self._uuid, self._unkept = sent.words.uuid, None
        kind = sent.words.status.value
        if kind in (NEW, JOIN) and self._room is not None:
            yield _fault("already in a room")
        elif kind == NEW:
            yield from self._open()
        elif kind == JOIN:
            yield self._enter(sent.words.uuid)
        elif kind not in (CONNECTED, CLOSE):
            yield _fault(
                f"There is no status value {kind}. Lawful: 1 (new), 2 (join), 3 (connected), 4 (close)."
            )
        elif self._room is None:
            yield _fault("Not in a room yet. Make one with status value 1 or join one with 2.")
        elif kind == CONNECTED:
            yield from self._say(self._room, sent)
        else:
            yield from self._close(self._room)

    def _open(self) -> Iterator[Command]:
        room = str(uuid4())
        self._granted = False
        yield CreateOwnedRoom(id=_OPEN, room=room, mode="broadcast")
        if not self._granted:
            return
        self._made = room
        yield CompatJoin(id=_ENTER, room=room, create="never")
        if self._room is None:
            yield CloseRoom(id=_CLOSE, room=room)

    def _enter(self, uuid: str) -> Command | Error:
        spelled = _UUID.fullmatch(uuid)
        # Rooms that other clients made have names of other kinds.
        room = str(UUID(next(filter(None, spelled.groups())))) if spelled else uuid
        if not validators.is_room_name(room):
            return _fault("not connected")
        return CompatJoin(id=_ENTER, room=room, create="never")

    def _say(self, room: str, sent: Sent) -> Iterator[Command]:
        words = sent.words
        said = SendOriginal(
            id=_KEEP if words.state_message else _SAY,
            room=room,
            event=words.func_key,
            # State that is null would be taken away.
            data=Raw(_encode(words.func_params or [])),
            state=words.state_message or None,
            echo=False,
            original=None if sent.is_usual(room) else sent.whole(),
        )
        yield said
        if self._unkept is not None:
            # What cannot be kept is heard all the same, as the state message that it is.
            yield msgspec.structs.replace(said, id=_SAY_UNKEPT, state=None, original=sent.whole())

    def _close(self, room: str) -> Iterator[Command]:
        if room == self._made:
            yield CloseRoom(id=_CLOSE, room=room)
            return
        yield Leave(id=_LEAVE, room=room)
        if self._told_end:
            yield Disconnect()

    # Writing -----------------------------------------------------------------------------------------

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Reply):
            return self._tell_granted(event)
        if isinstance(event, Error):
            return self._tell_refused(event)
        if isinstance(event, Removed):
            return self._tell_end(event.room)
        if isinstance(event, Closing):
            return None if self._told_end else self._tell_end(self._room or "", event.message)
        if isinstance(event, Direct):
            # Before it is in a room a client takes any message for the answer to its coming in.
            if self._room is None:
                return None
            room = self._room if event.room in NO_ROOM else event.room
            event = msgspec.structs.replace(event, room=room)
        return self.encode_broadcast(event, "")

    def encode_all(self, event: Event | Command) -> list[bytes]:
        told = super().encode_all(event)
        if isinstance(event, Reply) and isinstance(event.data, JoinData):
            told += map(replayed, event.data.state)
        return told

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        if isinstance(event, Message):
            return spoken(event)
        # What other clients say outside of rooms has no place here: it would call a listener's functions.
        if isinstance(event, Direct) and not event.outside:
            return spoken(event)
        return None

    def _tell_granted(self, reply: Reply) -> bytes | None:
        self._granted = True
        if isinstance(reply.data, JoinData):
            self._room = room = reply.data.room.name
            uuid = room if room == self._made else self._uuid
            return _status(uuid, CONNECTED, "connected")
        if reply.id == _SAY_UNKEPT and self._unkept is not None:
            return _status(self._uuid, CONNECTED, self._unkept)
        if reply.id == _LEAVE and self._room is not None:
            return self._tell_end(self._room)
        return None

    def _tell_refused(self, error: Error) -> bytes | None:
        if error.code == NotSender.code:
            return _status(self._uuid, CONNECTED, "only the owner can broadcast")
        if error.id == _ENTER and error.code == RoomNotFound.code:
            return _status(self._uuid, NOT_CONNECTED, "not connected")
        if error.id == _KEEP and error.code in _UNKEPT:
            self._unkept = error.message
            return None
        if self._room is not None and error.id in (_SAY, _KEEP, _SAY_UNKEPT, _LEAVE, _CLOSE):
            return _status(self._uuid, CONNECTED, error.message)
        # That its owner could not come into a new room has been told.
        return None if error.id == _CLOSE else _status(self._uuid, NOT_CONNECTED, error.message)

    def _tell_end(self, room: str, text: str = "not connected") -> bytes:
        self._room, self._told_end = None, True
        return _status(room, NOT_CONNECTED, text)


def _fault(message: str) -> Error:
    return Error(code=BadRequest.code, message=message)


def _status(uuid: str, value: int, text: str) -> bytes:
    return _encode(Words(uuid=uuid, status=Status(value, text), func_params=[]))
