"""The rtbroadcaster protocol: one owner, who speaks, and listeners, in JSON.

Every message, in both directions, has the same five fields; ``status.value`` says what it is about.
A room is called by a UUID. What an owner said in its own way (more members, another status text) is
kept as the ``words`` of the message, for listeners of this protocol; everybody else hears the event
``funcKey`` with the list ``funcParams`` as its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec
from msgspec import Raw

from rooms import names
from rooms.errors import BadRequest, NotSender, ProtocolError, RoomNotFound
from rooms.events import (
    CloseRoom,
    Closing,
    Direct,
    Enter,
    Error,
    JoinData,
    Leave,
    Message,
    OpenRoom,
    Push,
    Quit,
    Removed,
    Reply,
    Request,
    Say,
)
from rooms.protocols import payload, strict
from rooms.protocols.base import Past, Protocol

# Values of a status.
NOT_CONNECTED, NEW, JOIN, CONNECTED, CLOSE = range(5)
LONGEST_KEY = 64

# What requests are called, so that their answers are known.
_OPEN, _ENTER, _SAY, _LEAVE, _CLOSE = "open", "enter", "say", "leave", "close"

_DASHED = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(rf"(?:urn:uuid:)?({_DASHED})|\{{({_DASHED})\}}|([0-9a-f]{{32}})", re.ASCII | re.IGNORECASE)


class Status(msgspec.Struct, frozen=True):
    value: int = NOT_CONNECTED
    text: str = ""


class Words(msgspec.Struct, frozen=True, rename="camel"):
    """The five fields. Of what is sent none has to be there, as in the original."""

    uuid: str = ""
    status: Status = Status()
    func_key: str = ""
    func_params: list[str] | None = None
    state_message: bool = False


_encoder = msgspec.json.Encoder()
_params_decoder = msgspec.json.Decoder(list[str])
_words_decoder = msgspec.json.Decoder(Words)


class Rtbroadcaster(Protocol):
    name: ClassVar[str] = "rtbroadcaster"
    separator: ClassVar[bytes | None] = b"\n"
    anonymous: ClassVar[bool] = True
    ends_with_room: ClassVar[bool] = True
    tells_past: ClassVar[Past] = "state"

    def __init__(self) -> None:
        # Where the client is, and the room that it made and owns.
        self._room: str | None = None
        self._made: str | None = None
        # The uuid of the message that is being carried out, as it was sent: answers repeat it.
        self._uuid = ""
        self._granted = False
        # The client has been told that this is the end.
        self._told_end = False

    # Reading -----------------------------------------------------------------------------------------

    def receive(self, frame: str | bytes) -> Iterator[Request | Error]:
        try:
            text = _text(frame)
            value, words = _read(text)
        except BadRequest as error:
            self._uuid = _uuid_in(frame)
            yield _fault(error.message)
            return
        self._uuid = words.uuid
        kind = words.status.value
        if kind in (NEW, JOIN) and self._room is not None:
            yield _fault("already in a room")
        elif kind == NEW:
            yield from self._open()
        elif kind == JOIN:
            yield self._enter(words.uuid)
        elif kind not in (CONNECTED, CLOSE):
            yield _fault(
                f"There is no status value {kind}. Lawful: 1 (new), 2 (join), 3 (connected), 4 (close)."
            )
        elif self._room is None:
            yield _fault("Not in a room yet. Make one with status value 1 or join one with 2.")
        elif kind == CONNECTED:
            yield _say(self._room, words, value, text)
        else:
            yield from self._close(self._room)

    def _open(self) -> Iterator[Request]:
        room = str(uuid4())
        self._granted = False
        yield OpenRoom(id=_OPEN, room=room, mode="broadcast")
        if not self._granted:
            return
        self._made = room
        yield Enter(id=_ENTER, room=room, make="never")
        if self._room is None:
            yield CloseRoom(id=_CLOSE, room=room)

    def _enter(self, uuid: str) -> Request | Error:
        spelled = _UUID.fullmatch(uuid)
        # Rooms that other clients made have names of other kinds.
        room = str(UUID(next(filter(None, spelled.groups())))) if spelled else uuid
        if not names.is_room_name(room):
            return _fault("not connected")
        return Enter(id=_ENTER, room=room, make="never")

    def _close(self, room: str) -> Iterator[Request]:
        if room == self._made:
            yield CloseRoom(id=_CLOSE, room=room)
            return
        yield Leave(id=_LEAVE, room=room)
        if self._told_end:
            yield Quit()

    # Writing -----------------------------------------------------------------------------------------

    def send(self, event: Push | Request) -> bytes | None:
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
            event = msgspec.structs.replace(event, room=event.room or self._room)
        return self.broadcast(event, "")

    @classmethod
    def broadcast(cls, event: Push | Request, application: str) -> bytes | None:
        if isinstance(event, Message):
            return bytes(event.words) if isinstance(event.words, Raw) else _encoder.encode(_words_of(event))
        # What other clients say outside of rooms has no place here: it would call a listener's functions.
        if isinstance(event, Direct) and not event.outside:
            return _encoder.encode(_words_of(event))
        return None

    def _tell_granted(self, reply: Reply) -> bytes | None:
        self._granted = True
        if isinstance(reply.data, JoinData):
            self._room = room = reply.data.room.name
            uuid = room if room == self._made else self._uuid
            replayed = [_encoder.encode(_replayed(message)) for message in reply.data.state]
            return b"\n".join([_status(uuid, CONNECTED, "connected"), *replayed])
        if reply.id == _LEAVE and self._room is not None:
            return self._tell_end(self._room)
        return None

    def _tell_refused(self, error: Error) -> bytes | None:
        if error.code == NotSender.code:
            return _status(self._uuid, CONNECTED, "only the owner can broadcast")
        if error.id == _ENTER and error.code == RoomNotFound.code:
            return _status(self._uuid, NOT_CONNECTED, "not connected")
        if self._room is not None and error.id in (_SAY, _LEAVE, _CLOSE):
            return _status(self._uuid, CONNECTED, error.message)
        # That its owner could not come into a new room has been told.
        return None if error.id == _CLOSE else _status(self._uuid, NOT_CONNECTED, error.message)

    def _tell_end(self, room: str, text: str = "not connected") -> bytes:
        self._room, self._told_end = None, True
        return _status(room, NOT_CONNECTED, text)


def _text(frame: str | bytes) -> str:
    try:
        text = frame if isinstance(frame, str) else frame.decode()
    except UnicodeDecodeError:
        raise BadRequest("A message is text in UTF-8.") from None
    # What listeners get holds none: they split frames at them.
    return text.replace("\n", " ")


def _read(text: str) -> tuple[dict[str, Any], Words]:
    """The JSON object that was sent, and the five fields of it. Raises BadRequest."""
    try:
        if not strict.is_plain(text):
            _, fault = strict.read(text)
            if fault is not None:
                raise fault
        value = msgspec.json.decode(text)
        words = msgspec.convert(value, Words)
    except msgspec.ValidationError as error:
        what = str(error).replace("`", "").replace(" - at $.", " at ").replace(" | ", " or ")
        raise BadRequest(f"This is no lawful message: {what[:1].lower()}{what[1:]}.") from None
    except (msgspec.DecodeError, ProtocolError, UnicodeEncodeError):
        raise BadRequest("A message is one JSON object.") from None
    if len(words.func_key) > LONGEST_KEY or "\0" in words.func_key:
        raise BadRequest(f"A funcKey has at most {LONGEST_KEY} characters, none of them NUL.")
    return value, words


def _uuid_in(frame: str | bytes) -> str:
    """The uuid of a message that could not be read as one, or nothing."""
    try:
        uuid = strict.read(_text(frame))[0].get("uuid")
        # One that holds a lone surrogate could not be written again.
        msgspec.json.encode(uuid)
    except (BadRequest, ProtocolError, UnicodeEncodeError):
        return ""
    return uuid if isinstance(uuid, str) else ""


def _say(room: str, words: Words, value: dict[str, Any], text: str) -> Say:
    params = words.func_params
    usual = {
        "uuid": room,
        "status": {"value": CONNECTED, "text": "connected"},
        "funcKey": words.func_key,
        "funcParams": params,
        "stateMessage": words.state_message,
    }
    # State that is null would be taken away, and null parameters are kept like any others.
    is_usual = params is not None and value == usual
    return Say(
        id=_SAY,
        room=room,
        event=words.func_key,
        data=Raw(_encoder.encode(params or [])),
        state=words.state_message or None,
        echo=False,
        words=None if is_usual else Raw(text.encode()),
    )


def _fault(message: str) -> Error:
    return Error(code=BadRequest.code, message=message)


def _status(uuid: str, value: int, text: str) -> bytes:
    return _encoder.encode(Words(uuid=uuid, status=Status(value, text), func_params=[]))


def _words_of(event: Message | Direct) -> Words:
    """What was said in another way, as an owner says it."""
    return Words(
        uuid=event.room,
        status=Status(CONNECTED, "connected"),
        func_key=event.event,
        func_params=_params(event.data),
        state_message=isinstance(event, Message) and event.state is True,
    )


def _params(data: Raw) -> list[str]:
    try:
        return _params_decoder.decode(data)
    except msgspec.DecodeError:
        pass
    try:
        return [payload.to_bytes(data).decode()]
    except UnicodeDecodeError:
        return [bytes(data).decode()]


def _replayed(message: Message) -> Words:
    """What is kept as state are the five fields, whatever else was said with them."""
    return _words_decoder.decode(message.words) if isinstance(message.words, Raw) else _words_of(message)
