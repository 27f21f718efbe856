"""The native protocol, version 1: JSON objects in text frames, one per line.

Commands and events have this protocol's field names, so decoding is one typed decode and encoding is one
encode. ``data`` is checked, but not parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Union

import msgspec
from msgspec import UNSET

from rooms.protocol import commands, strict_json, timestamps, validators
from rooms.protocol.base import Protocol, ProtocolOptions, error_event
from rooms.protocol.commands import Command, Send
from rooms.protocol.errors import BadRequest, ProtocolError, ReservedEvent, RoomsError, UnknownType
from rooms.protocol.events import Direct, Error, Event, Message, Rejoined, Reply
from rooms.protocol.json_validation import is_valid_json
from rooms.protocol.results import HistoryData, JoinData
from rooms.protocol.strict_json import MAX_DEPTH
from rooms.protocol.types import CommandId

VERSION = 1

_COMMANDS: tuple[type[Command], ...] = (
    commands.Login,
    commands.Logout,
    commands.ListRooms,
    commands.CreateRoom,
    commands.CloseRoom,
    commands.Join,
    commands.Leave,
    commands.Subscribe,
    commands.Unsubscribe,
    commands.Send,
    commands.ReadHistory,
    commands.ListMembers,
    commands.Ping,
    commands.Pong,
)
_TYPES = {str(each.__struct_config__.tag): each for each in _COMMANDS}

# Names that no event of a message may have: the protocol's own types, ``message`` excepted.
RESERVED = frozenset(_TYPES) | {
    *("kick", "ban", "unban", "mute", "reply", "error", "connected", "joined", "left"),
    *("room_added", "room_removed", "removed", "closing"),
}
RESERVED -= {"message"}

_WITH_ROOM = frozenset(each for each in _COMMANDS if "room" in each.__struct_fields__)
# The texts of a command that are stored unchanged. PostgreSQL stores no NUL in a text.
_TEXTS: dict[type[Command], tuple[str, ...]] = {
    commands.Send: ("event", "key"),
    commands.CreateRoom: ("title",),
    commands.ListRooms: ("prefix",),
}

_CommandId: Any = CommandId | None
_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Union[_COMMANDS])  # noqa: UP007
_decode = _decoder.decode
_encode = msgspec.json.Encoder().encode

# A line that may break a rule which msgspec does not check contains one of these: a long number, a long
# exponent, a surrogate. Every digit is replaced by 0 first, so that one pass finds each of them.
_SHAPES = bytes.maketrans(b"123456789ED{", b"000000000ed[")
_LONG, _SURROGATE = ("0" * 19, "e000", "e+000"), "\\ud"


class Native(Protocol):
    name: ClassVar[str] = "native"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(
        subprotocol="rooms.v1",
        resumable=True,
        limits_message_size=True,
        heartbeat=True,
        join_history="all",
        presence_events="diffs",
        one_request_per_frame=False,
    )
    separator: ClassVar[bytes | None] = b"\n"

    def decode(self, frame: str | bytes) -> Iterable[Command | Error]:
        if isinstance(frame, bytes):
            raise ProtocolError("Expected a text frame, got a binary one.")
        if "\n" not in frame:
            return (_read(frame),) if frame and not frame.isspace() else ()
        return (_read(line) for line in frame.split("\n") if line and not line.isspace())

    def encode(self, event: Event | Command) -> bytes | None:
        return self.encode_broadcast(event, "")

    def encode_all(self, event: Event | Command) -> list[bytes]:
        frame = self.encode_broadcast(event, "")
        return [] if frame is None else [frame]

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        if (translate := _TRANSLATIONS.get(event.__class__)) is None:
            return _encode(event)
        translated = translate(event)
        return None if translated is None else _encode(translated)


def _message(message: Message) -> Message:
    """Return a message without its ``original``, which native clients never see."""
    return message if message.original is UNSET else msgspec.structs.replace(message, original=UNSET)


def _reply(reply: Reply) -> Reply | None:
    if reply.id is None:
        return None
    if isinstance(reply.data, (JoinData, HistoryData)):
        return msgspec.structs.replace(reply, data=_without_originals(reply.data))
    return reply


def _without_originals(data: JoinData | HistoryData) -> JoinData | HistoryData:
    messages = [_message(each) for each in data.messages]
    if isinstance(data, HistoryData):
        return msgspec.structs.replace(data, messages=messages)
    return msgspec.structs.replace(data, messages=messages, state=[_message(each) for each in data.state])


def _direct(event: Direct) -> Message | None:
    # To a native client a message outside of rooms would look like one in a room.
    if event.outside:
        return None
    return Message(
        room=event.room,
        event=event.event,
        data=event.data,
        sender=event.sender,
        seq=None,
        time=timestamps.now(),
        to=[event.to] if event.to else UNSET,
    )


# Events that native clients receive in another form, or not at all (None).
_TRANSLATIONS: dict[type[Event | Command], Callable[[Any], Event | None]] = {
    Reply: _reply,
    Message: _message,
    Direct: _direct,
    Rejoined: lambda event: None,
}


def is_plain(line: str) -> bool:
    """Return whether a line surely follows the rules for depth and values."""
    # A str again, because Python finds a str in a str much faster than bytes in bytes.
    shape = line.encode().translate(_SHAPES).decode("latin-1")
    if shape.count("[") > MAX_DEPTH or ("\\" in shape and _SURROGATE in shape):
        return False
    return "000" not in shape or not any(each in shape for each in _LONG)


def _read(line: str) -> Command | Error:
    try:
        if not is_plain(line) and not is_valid_json(line.encode()):
            _, fault = strict_json.parse(line)
            if fault:
                return _explain(line)
        command = _decode(line)
        _check(command)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return _explain(line)
    except RoomsError as error:
        if isinstance(error, ProtocolError):
            raise
        return error_event(command.id, error)
    return command


def _check(command: Command) -> None:
    """Check the rules that types cannot express. Raises RoomsError."""
    kind = type(command)
    if kind in _WITH_ROOM:
        validators.room_name(command.room)  # type: ignore[attr-defined]
    for field in _TEXTS.get(kind, ()):
        text: str | None = getattr(command, field)
        if text is not None and "\0" in text:
            raise BadRequest("Names, keys and titles hold no NUL.")
    if isinstance(command, Send) and command.event is not None and command.event in RESERVED:
        raise ReservedEvent(f"The event name {command.event} belongs to the protocol; choose another.")


def _explain(line: str) -> Error:
    """Return the Error that answers a line which is not a valid command."""
    value, fault = strict_json.parse(line)
    id = _id(value)
    if fault is not None:
        return error_event(id, fault)
    kind = value.get("type")
    if isinstance(kind, str) and kind not in _TYPES:
        known = ", ".join(sorted(_TYPES))
        return error_event(id, UnknownType(f"Got the unknown type {kind[:64]}, expected one of: {known}."))
    try:
        msgspec.convert(value, _TYPES.get(kind, Command) if isinstance(kind, str) else _Typed)
    except msgspec.ValidationError as error:
        return error_event(id, BadRequest(_describe(error)))
    return error_event(id, BadRequest("This is not a valid command."))


class _Typed(msgspec.Struct):
    type: str


def _id(value: dict[str, Any]) -> CommandId | None:
    try:
        id: CommandId | None = msgspec.convert(value.get("id"), _CommandId)
        # An id with a lone surrogate cannot be encoded in the answer.
        msgspec.json.encode(id)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return None
    return id


def _describe(error: msgspec.ValidationError) -> str:
    """Return msgspec's error as a sentence: ``room: expected str, got int.``"""
    what, _, where = str(error).replace("`", "").partition(" - at $.")
    what = what[:1].lower() + what[1:]
    return f"{where}: {what}." if where else f"{what[:1].upper()}{what[1:]}."
