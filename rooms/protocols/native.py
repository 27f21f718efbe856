r"""The native protocol, version 1: JSON objects in text frames, one or more to a frame.

The events of ``events.py`` carry this protocol's own names, so reading is one typed decode and
writing one encode. ``data`` is checked but not parsed on the way through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Union

import msgspec
from msgspec import UNSET

from rooms import clock, events, names
from rooms.errors import BadRequest, ProtocolError, ReservedEvent, RoomsError, UnknownType
from rooms.events import (
    Direct,
    Error,
    HistoryData,
    JoinData,
    Message,
    Push,
    Rejoined,
    Reply,
    Request,
    RequestId,
)
from rooms.protocols import strict
from rooms.protocols.base import Comings, Past, Protocol, error_answer
from rooms.protocols.json_texts import is_lawful

VERSION = 1

_REQUESTS: tuple[type[Request], ...] = (
    events.Login,
    events.Logout,
    events.ListRooms,
    events.CreateRoom,
    events.CloseRoom,
    events.Join,
    events.Leave,
    events.Subscribe,
    events.Unsubscribe,
    events.Send,
    events.ReadHistory,
    events.ListMembers,
    events.Ping,
    events.Pong,
)
_TYPES = {str(each.__struct_config__.tag): each for each in _REQUESTS}

# No event may be called as one of the protocol's own types is; ``message`` is the one exception.
RESERVED = frozenset(_TYPES) | {
    *("kick", "ban", "unban", "mute", "reply", "error", "connected", "joined", "left"),
    *("room_added", "room_removed", "removed", "closing"),
}
RESERVED -= {"message"}

_RequestId: Any = RequestId | None
_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Union[_REQUESTS])  # noqa: UP007
_encoder = msgspec.json.Encoder()


class Native(Protocol):
    name: ClassVar[str] = "native"
    resumable: ClassVar[bool] = True
    limits_messages: ClassVar[bool] = True
    tells_past: ClassVar[Past] = "all"
    tells_comings: ClassVar[Comings] = "digests"
    asks_once: ClassVar[bool] = False
    heartbeat: ClassVar[bool] = True
    separator: ClassVar[bytes | None] = b"\n"
    subprotocol: ClassVar[str | None] = "rooms.v1"

    def receive(self, frame: str | bytes) -> Iterator[Request | Error]:
        if isinstance(frame, bytes):
            raise ProtocolError("This protocol speaks text frames, got a binary one.")
        for line in frame.split("\n"):
            if line and not line.isspace():
                yield _read(line)

    def send(self, event: Push | Request) -> bytes | None:
        if isinstance(event, Reply):
            if event.id is None:
                return None
            if isinstance(event.data, JoinData | HistoryData):
                event = msgspec.structs.replace(event, data=_without_words(event.data))
        return self.broadcast(event, "")

    @classmethod
    def broadcast(cls, event: Push | Request, application: str) -> bytes | None:
        if isinstance(event, Message):
            event = plain(event)
        elif isinstance(event, Rejoined):
            return None
        elif isinstance(event, Direct):
            return _direct(event)
        return _encoder.encode(event)


def plain(message: Message) -> Message:
    """The message as native clients know it."""
    return message if message.words is UNSET else msgspec.structs.replace(message, words=UNSET)


def _without_words(data: JoinData | HistoryData) -> JoinData | HistoryData:
    messages = [plain(each) for each in data.messages]
    if isinstance(data, HistoryData):
        return msgspec.structs.replace(data, messages=messages)
    return msgspec.structs.replace(data, messages=messages, state=[plain(each) for each in data.state])


def _direct(event: Direct) -> bytes | None:
    # What other clients say outside of rooms has no place here: it would seem to be said in one.
    if event.outside:
        return None
    said = Message(
        room=event.room,
        event=event.event,
        data=event.data,
        sender=event.sender,
        seq=None,
        time=clock.now(),
        to=[event.to] if event.to else UNSET,
    )
    return _encoder.encode(said)


def _read(line: str) -> Request | Error:
    try:
        if not strict.is_plain(line) and not is_lawful(line.encode()):
            _, fault = strict.read(line)
            if fault:
                return _explain(line)
        request = _decoder.decode(line)
        _check(request)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return _explain(line)
    except RoomsError as error:
        if isinstance(error, ProtocolError):
            raise
        return error_answer(request.id, error)
    return request


def _check(request: Request) -> None:
    """The rules that types cannot say."""
    room: str | None = getattr(request, "room", None)
    if room is not None:
        names.room_name(room)
    if any(text is not None and "\0" in text for text in _texts(request)):
        raise BadRequest("Names, keys and titles hold no NUL.")
    if isinstance(request, events.Send) and request.event in RESERVED:
        raise ReservedEvent(f"The event name {request.event} belongs to the protocol; choose another.")


def _texts(request: Request) -> tuple[str | None, ...]:
    """The texts of a request that are kept as they are. PostgreSQL takes no NUL in any of them."""
    if isinstance(request, events.Send):
        return request.event, request.key
    if isinstance(request, events.CreateRoom):
        return (request.title,)
    return (request.prefix,) if isinstance(request, events.ListRooms) else ()


def _explain(line: str) -> Error:
    """The answer to a line that could not be read as a request."""
    value, fault = strict.read(line)
    id = _id(value)
    if fault is not None:
        return error_answer(id, fault)
    kind = value.get("type")
    if isinstance(kind, str) and kind not in _TYPES:
        lawful = ", ".join(sorted(_TYPES))
        return error_answer(id, UnknownType(f"There is no type {kind[:64]}. Lawful: {lawful}."))
    try:
        msgspec.convert(value, _TYPES.get(kind, Request) if isinstance(kind, str) else _Typed)
    except msgspec.ValidationError as error:
        return error_answer(id, BadRequest(_in_plain_words(error)))
    return error_answer(id, BadRequest("This request could not be read."))


class _Typed(msgspec.Struct):
    type: str


def _id(value: dict[str, Any]) -> RequestId | None:
    try:
        id: RequestId | None = msgspec.convert(value.get("id"), _RequestId)
        # One that holds a lone surrogate could not be written again.
        msgspec.json.encode(id)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return None
    return id


def _in_plain_words(error: msgspec.ValidationError) -> str:
    """msgspec says "Expected `str`, got `int` - at `$.room`"; people read "room: expected str, got int"."""
    what, _, where = str(error).replace("`", "").partition(" - at $.")
    what = what[:1].lower() + what[1:]
    return f"{where}: {what}." if where else f"{what[:1].upper()}{what[1:]}."
