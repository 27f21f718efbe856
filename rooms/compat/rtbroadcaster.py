"""The rtbroadcaster protocol: an owner that sends, and listeners, in JSON.

Every message, in both directions, has the same five fields; ``status.value`` is its kind. The name of a room
is a UUID. A message that an owner sends in another form than the original's SDK (more members, another
status text) is stored as the ``original`` of the message, for listeners of this protocol. Clients of other
protocols receive an event ``funcKey`` with the list ``funcParams`` as its data.

The rules of the native protocol apply to the five fields, because clients of all protocols receive them.
Other members are passed on to listeners unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid4

import msgspec
from msgspec import UNSET, Meta, Raw

from rooms.protocol import payload, validators
from rooms.protocol.base import Protocol, ProtocolOptions
from rooms.protocol.commands import CloseRoom, Command, Leave
from rooms.protocol.compat_commands import CompatJoin, CreateOwnedRoom, Disconnect, SendOriginal
from rooms.protocol.errors import BadRequest, MessageTooLarge, NotSender, RoomNotFound
from rooms.protocol.events import Closing, Direct, Error, Event, Message, Removed, Reply
from rooms.protocol.json_validation import is_valid_json
from rooms.protocol.results import JoinData

# The rooms of messages from the server to one client outside of rooms; roomer's clients use ``root``.
NO_ROOM = frozenset({"", validators.ROOT_ROOM})

# Values of a status.
NOT_CONNECTED, NEW, JOIN, CONNECTED, CLOSE = range(5)

# The ids of commands, by which their answers are recognised.
_CREATE, _JOIN, _SEND, _LEAVE, _CLOSE = "create", "join", "send", "leave", "close"
_SEND_STATE, _SEND_UNSTORED = "send state", "send unstored"
# The errors for state that cannot be stored: it is too long, or there is too much.
_NOT_STORABLE = frozenset({MessageTooLarge.code, BadRequest.code})

_DASHED = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(rf"(?:urn:uuid:)?({_DASHED})|\{{({_DASHED})\}}|([0-9a-f]{{32}})", re.ASCII | re.IGNORECASE)


class Status(msgspec.Struct, frozen=True):
    value: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = NOT_CONNECTED
    text: str = ""


class Fields(msgspec.Struct, frozen=True, rename="camel"):
    """The five fields. As in the original, a client may leave out each of them."""

    uuid: str = ""
    status: Status = Status()
    func_key: str = ""
    func_params: list[str] | None = None
    state_message: bool = False


class _UuidField(msgspec.Struct):
    uuid: str = ""


_encode = msgspec.json.encode
_fields_decoder = msgspec.json.Decoder(Fields)
_members_decoder = msgspec.json.Decoder(dict[str, Raw])
_params_decoder = msgspec.json.Decoder(list[str])
_FIELD_NAMES = frozenset(Fields.__struct_encode_fields__)
_STATUS_NAMES = frozenset(Status.__struct_encode_fields__)


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """A message of a client: its five fields, and its text on one line."""

    fields: Fields
    text: bytes

    def is_usual(self, room: str) -> bool:
        """Return whether it is, member for member, what the SDK sends to ``room``."""
        fields = self.fields
        # Null parameters are passed on as null in this protocol only, and so need the original.
        if (
            fields.func_params is None
            or fields.uuid != room
            or fields.status != Status(CONNECTED, "connected")
        ):
            return False
        try:
            members = _members_decoder.decode(self.text)
            status = _members_decoder.decode(members["status"])
            return members.keys() == _FIELD_NAMES and status.keys() == _STATUS_NAMES
        except (msgspec.DecodeError, RecursionError):
            return False

    def original(self) -> Raw:
        """Return the text as the ``original`` of an event.

        A text that not every JSON parser accepts is in a string.
        """
        return Raw(self.text if is_valid_json(self.text) else _encode(self.text.decode()))


class Rtbroadcaster(Protocol):
    name: ClassVar[str] = "rtbroadcaster"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(
        anonymous=True, join_history="state", serial_requests=True, disconnect_on_removal=True
    )
    separator: ClassVar[bytes | None] = b"\n"

    def __init__(self) -> None:
        # The room that the client is in, and the room that it created.
        self._room: str | None = None
        self._owned_room: str | None = None
        # The uuid of the message that is being executed, as the client wrote it, for the answers.
        self._uuid = ""
        self._succeeded = False
        # The reason why the state that was just sent is not stored.
        self._not_stored: str | None = None
        # Whether the client has received "not connected", which ends it.
        self._ended = False

    # Decoding ----------------------------------------------------------------------------------------

    def decode(self, frame: str | bytes) -> Iterator[Command | Error]:
        try:
            message = parse_message(frame)
        except BadRequest as error:
            self._uuid = find_uuid(frame)
            yield _error(error.message)
            return
        self._uuid, self._not_stored = message.fields.uuid, None
        kind = message.fields.status.value
        if kind in (NEW, JOIN) and self._room is not None:
            yield _error("already in a room")
        elif kind == NEW:
            yield from self._create()
        elif kind == JOIN:
            yield self._join(message.fields.uuid)
        elif kind not in (CONNECTED, CLOSE):
            yield _error(
                f"Expected a status value of 1 (new), 2 (join), 3 (connected) or 4 (close), got {kind}."
            )
        elif self._room is None:
            yield _error("Not in a room yet. Make one with status value 1 or join one with 2.")
        elif kind == CONNECTED:
            yield from self._send(self._room, message)
        else:
            yield from self._close(self._room)

    def _create(self) -> Iterator[Command]:
        room = str(uuid4())
        self._succeeded = False
        yield CreateOwnedRoom(id=_CREATE, room=room, mode="broadcast")
        if not self._succeeded:
            return
        self._owned_room = room
        yield CompatJoin(id=_JOIN, room=room, create="never")
        if self._room is None:
            yield CloseRoom(id=_CLOSE, room=room)

    def _join(self, uuid: str) -> Command | Error:
        match = _UUID.fullmatch(uuid)
        # Rooms that clients of other protocols created have other names than UUIDs.
        room = str(UUID(next(filter(None, match.groups())))) if match else uuid
        if not validators.is_room_name(room):
            return _error("not connected")
        return CompatJoin(id=_JOIN, room=room, create="never")

    def _send(self, room: str, message: ClientMessage) -> Iterator[Command]:
        fields = message.fields
        command = SendOriginal(
            id=_SEND_STATE if fields.state_message else _SEND,
            room=room,
            event=fields.func_key,
            # As null the data of a state message would delete the state.
            data=Raw(_encode(fields.func_params or [])),
            state=fields.state_message or None,
            echo=False,
            original=None if message.is_usual(room) else message.original(),
        )
        yield command
        if self._not_stored is not None:
            # Broadcast nevertheless; that it is a state message is only in its original.
            yield msgspec.structs.replace(command, id=_SEND_UNSTORED, state=None, original=message.original())

    def _close(self, room: str) -> Iterator[Command]:
        if room == self._owned_room:
            yield CloseRoom(id=_CLOSE, room=room)
            return
        yield Leave(id=_LEAVE, room=room)
        if self._ended:
            yield Disconnect()

    # Encoding ----------------------------------------------------------------------------------------

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Reply):
            return self._encode_reply(event)
        if isinstance(event, Error):
            return self._encode_error(event)
        if isinstance(event, Removed):
            return self._encode_end(event.room)
        if isinstance(event, Closing):
            return None if self._ended else self._encode_end(self._room or "", event.message)
        if isinstance(event, Direct):
            # Before a client is in a room it takes any message for the answer to its join.
            if self._room is None:
                return None
            room = self._room if event.room in NO_ROOM else event.room
            event = msgspec.structs.replace(event, room=room)
        return self.encode_broadcast(event, "")

    def encode_all(self, event: Event | Command) -> list[bytes]:
        frames = super().encode_all(event)
        if isinstance(event, Reply) and isinstance(event.data, JoinData):
            frames += map(encode_state, event.data.state)
        return frames

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        if isinstance(event, Message):
            return encode_message(event)
        # A message outside of rooms would call the functions of a listener.
        if isinstance(event, Direct) and not event.outside:
            return encode_message(event)
        return None

    def _encode_reply(self, reply: Reply) -> bytes | None:
        self._succeeded = True
        if isinstance(reply.data, JoinData):
            self._room = room = reply.data.room.name
            uuid = room if room == self._owned_room else self._uuid
            return _status(uuid, CONNECTED, "connected")
        if reply.id == _SEND_UNSTORED and self._not_stored is not None:
            return _status(self._uuid, CONNECTED, self._not_stored)
        if reply.id == _LEAVE and self._room is not None:
            return self._encode_end(self._room)
        return None

    def _encode_error(self, error: Error) -> bytes | None:
        if error.code == NotSender.code:
            return _status(self._uuid, CONNECTED, "only the owner can broadcast")
        if error.id == _JOIN and error.code == RoomNotFound.code:
            return _status(self._uuid, NOT_CONNECTED, "not connected")
        if error.id == _SEND_STATE and error.code in _NOT_STORABLE:
            self._not_stored = error.message
            return None
        if self._room is not None and error.id in (_SEND, _SEND_STATE, _SEND_UNSTORED, _LEAVE, _CLOSE):
            return _status(self._uuid, CONNECTED, error.message)
        # Without a room a close follows the failed join of the owner, which has been answered.
        return None if error.id == _CLOSE else _status(self._uuid, NOT_CONNECTED, error.message)

    def _encode_end(self, room: str, text: str = "not connected") -> bytes:
        self._room, self._ended = None, True
        return _status(room, NOT_CONNECTED, text)


def _error(message: str) -> Error:
    return Error(code=BadRequest.code, message=message)


def _status(uuid: str, value: int, text: str) -> bytes:
    return _encode(Fields(uuid=uuid, status=Status(value, text), func_params=[]))


# Parsing messages --------------------------------------------------------------------------------------


def parse_message(frame: str | bytes) -> ClientMessage:
    """Return the message in a frame. Raises BadRequest."""
    text = _line(frame)
    try:
        fields = _parse_fields(text)
    except msgspec.ValidationError as error:
        what = str(error).replace("`", "").replace(" - at $.", " at ").replace(" | ", " or ")
        raise BadRequest(f"This is not a valid message: {what[:1].lower()}{what[1:]}.") from None
    if not validators.is_event_name(fields.func_key):
        raise BadRequest(f"A funcKey has at most {validators.MAX_EVENT_LENGTH} characters, none of them NUL.")
    return ClientMessage(fields, text)


def find_uuid(frame: str | bytes) -> str:
    """Return the uuid of a frame that is not a valid message, or an empty string."""
    try:
        text = _line(frame)
        try:
            return msgspec.json.decode(text, type=_UuidField).uuid
        except (msgspec.DecodeError, RecursionError):
            uuid = _parse_object(text).get("uuid")
            # A uuid with a lone surrogate cannot be encoded in the answer.
            return uuid if isinstance(uuid, str) and uuid.encode() else ""
    except (BadRequest, UnicodeEncodeError):
        return ""


def _line(frame: str | bytes) -> bytes:
    try:
        text = frame.encode() if isinstance(frame, str) else frame
        text.decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        raise BadRequest("A message is text in UTF-8.") from None
    # Without newlines, at which listeners split frames.
    return text.replace(b"\n", b" ")


def _parse_fields(text: bytes) -> Fields:
    """Return the five fields. Raises BadRequest, and ValidationError for a type."""
    try:
        return _fields_decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError):
        value = _parse_object(text)
    try:
        fields = msgspec.convert({name: value[name] for name in _FIELD_NAMES & value.keys()}, Fields)
        _encode(fields)
    except UnicodeEncodeError:
        raise BadRequest("Text must not hold lone surrogates.") from None
    return fields


def _parse_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object, which may hold lone surrogates. Raises BadRequest."""
    try:
        # Cut, because the interpreter refuses to parse very long integers.
        value = json.loads(text.decode(), parse_int=lambda digits: int(digits[:20]), parse_constant=_refuse)
    except RecursionError:
        raise BadRequest("A message is not nested that deep.") from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadRequest("A message is one JSON object.")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON.")


# Encoding messages -------------------------------------------------------------------------------------


def encode_message(event: Message | Direct) -> bytes:
    """Return a message for listeners, in its original form if it has one."""
    text = _original_text(event)
    return _encode(_fields_of(event)) if text is None else text


def encode_state(message: Message) -> bytes:
    """Return a state message for a joining listener: the five fields only."""
    text = _original_text(message)
    return _encode(_fields_of(message) if text is None else _parse_fields(text))


def _original_text(event: Message | Direct) -> bytes | None:
    original = event.original if isinstance(event, Message) else UNSET
    if not isinstance(original, Raw):
        return None
    text = bytes(original)
    return msgspec.json.decode(text, type=str).encode() if text.startswith(b'"') else text


def _fields_of(event: Message | Direct) -> Fields:
    """Return the fields for a message without an original, as an owner sends it."""
    return Fields(
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
