"""The goroomserver protocol: JSON commands for an application, and JSON answers.

The node answers a command before it reads the next one, so the codec keeps only the last frame, which an
error repeats. Frames are parsed as leniently as in the original: missing and null members are empty, unknown
members are ignored, numbers may be as large as a double holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, ClassVar

import msgspec
from msgspec import Raw, Struct

from rooms.protocol import native, strict_json, validators
from rooms.protocol.base import Protocol, ProtocolOptions, error_event
from rooms.protocol.commands import Command, Leave, Login, Logout, Unsubscribe
from rooms.protocol.compat_commands import (
    ApplicationCommand,
    CompatJoin,
    CompatSubscribe,
    SendToApplication,
    SendToRoomOrApplication,
)
from rooms.protocol.errors import BadRequest, RoomsError, UnknownType
from rooms.protocol.events import Direct, Error, Event, Message, Reply, RoomAdded, RoomEdited, RoomRemoved
from rooms.protocol.json_validation import is_valid_json


class EventType(IntEnum):
    CONNECTION = 1
    DISCONNECTION = 2
    JOIN_APP = 3
    JOIN_ROOM = 4
    LEAVE_ROOM = 5
    LOGIN = 6
    LOGOUT = 7
    RECONNECT = 8
    SUBSCRIBE = 9
    UNSUBSCRIBE = 10
    MESSAGE = 11
    ROOM_ADD = 12
    ROOM_REMOVE = 13


class Fault(Enum):
    """The code and the text of an error."""

    INVALID_APP = 1, "App name is invalid"
    USER_UNAVAILABLE = 2, "User unavailable in app"
    LOGIN = 3, "User login error"
    ALREADY_LOGGED_IN = 4, "User already logged in to app"
    LOGOUT = 5, "User logout error"
    INVALID_ROOM = 6, "Room name provided is invalid"
    UNKNOWN_ROOM = 7, "Room does not exist in app"
    ALREADY_JOINED = 8, "User has already joined the room"
    NOT_IN_ROOM = 9, "User is not available in the room"
    INVALID_EVENT = 10, "Invalid event provided"
    JOIN_ROOM = 12, "There is an error while joining room"
    LEAVE_ROOM = 13, "There is an error leaving the room"
    SERVER = 500, "Server Error"


# The fault for an error's code, whatever the command.
_FAULTS = {
    "no_such_application": Fault.INVALID_APP,
    "not_logged_in": Fault.USER_UNAVAILABLE,
    "unknown_type": Fault.INVALID_EVENT,
    "unavailable": Fault.SERVER,
    "rate_limited": Fault.SERVER,
    "internal_error": Fault.SERVER,
}
_ROOM_FAULTS = {
    "bad_request": Fault.INVALID_ROOM,
    "room_not_found": Fault.UNKNOWN_ROOM,
    "already_member": Fault.ALREADY_JOINED,
    "not_member": Fault.NOT_IN_ROOM,
}
# For each event: the faults for other error codes, and the fault for all the rest.
_FAULTS_BY_EVENT: dict[int, tuple[dict[str, Fault], Fault]] = {
    EventType.LOGIN: ({"name_taken": Fault.ALREADY_LOGGED_IN}, Fault.LOGIN),
    EventType.LOGOUT: ({}, Fault.LOGOUT),
    EventType.JOIN_ROOM: (_ROOM_FAULTS, Fault.JOIN_ROOM),
    EventType.SUBSCRIBE: (_ROOM_FAULTS, Fault.JOIN_ROOM),
    EventType.LEAVE_ROOM: (_ROOM_FAULTS, Fault.LEAVE_ROOM),
    EventType.UNSUBSCRIBE: (_ROOM_FAULTS, Fault.LEAVE_ROOM),
    EventType.MESSAGE: (_ROOM_FAULTS, Fault.SERVER),
}
_ROOM_EVENTS = frozenset(
    {EventType.JOIN_ROOM, EventType.LEAVE_ROOM, EventType.SUBSCRIBE, EventType.UNSUBSCRIBE}
)

# No integer of 64 bits is that large.
_INTEGERS_END = 2**63


class _Members(Struct):
    """The members of a frame that the server reads."""

    application: str | None = msgspec.field(name="appName", default=None)
    room: str | None = msgspec.field(name="roomName", default=None)
    event: int | None = msgspec.field(name="eventType", default=None)
    data: dict[str, Raw] | None = None


@dataclass(slots=True, kw_only=True)
class ClientFrame:
    """A frame of a client; only a ``valid`` one is a command.

    The members of ``data`` are JSON texts or, after lenient parsing, values.
    """

    id: int = 0
    application: str = ""
    room: str = ""
    event: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    valid: bool = False

    def text(self, name: str) -> str | None:
        """Return the text in a member of the data, or None."""
        value = self.data.get(name)
        if isinstance(value, Raw):
            try:
                return msgspec.json.decode(value, type=str)
            except msgspec.ValidationError:
                return None
        return value if isinstance(value, str) else None


_encoder = msgspec.json.Encoder()
_frame_decoder = msgspec.json.Decoder(_Members)
_data_decoder = msgspec.json.Decoder(dict[str, Raw])


class Goroomserver(Protocol):
    name: ClassVar[str] = "goroomserver"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(
        auto_subscribe_room_list=True, reports_missing_rooms=True, multiplexes_applications=True
    )

    def __init__(self, application: str = "", parent: Goroomserver | None = None) -> None:
        self._application = application
        # The codec of the socket, which decodes the frames for all applications.
        self._parent = parent or self
        self._last = ClientFrame()
        # The user's name, which the answer to a logout holds.
        self._user = ""

    def for_application(self, application: str) -> Goroomserver:
        return Goroomserver(application, self)

    def decode(self, frame: str | bytes) -> Iterator[Command | Error]:
        last = self._last = parse_frame(frame, self._last.id + 1)
        if not last.valid:
            yield error_event(last.id, UnknownType("Expected one JSON object per frame."))
            return
        command: Command | Error | None
        try:
            command = _command(last)
        except RoomsError as error:
            command = error_event(last.id, error)
        yield ApplicationCommand(id=last.id, application=last.application, command=command)

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Reply):
            return self._encode_reply(event)
        if isinstance(event, Error):
            return self._encode_error(event)
        return self.encode_broadcast(event, self._application)

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        if isinstance(event, Direct) and event.outside:
            # It would look like a message in a room.
            return None
        if isinstance(event, Message | Direct):
            return _message(event, application)
        if isinstance(event, RoomAdded):
            # The protocol has no event for a room that has changed.
            data = {"roomName": event.room.name, "appName": application}
            return None if isinstance(event, RoomEdited) else _success(EventType.ROOM_ADD, data)
        if isinstance(event, RoomRemoved):
            return _success(EventType.ROOM_REMOVE, {"roomName": event.room, "appName": application})
        return None

    def _encode_reply(self, reply: Reply) -> bytes | None:
        last = self._parent._last
        data: dict[str, Any] = {"appName": last.application}
        if last.event == EventType.LOGIN:
            user = reply.data["user"]  # type: ignore[index]
            data["userName"] = self._user = user.name
        elif last.event == EventType.LOGOUT:
            data["userName"] = self._user
        elif last.event == EventType.MESSAGE:
            answer = _handler_answer(reply.data, last.room)
            if not answer:
                return None
            data = {**answer, "roomName": last.room, **data}
        elif last.event in _ROOM_EVENTS:
            data["roomName"] = last.text("roomName")
        return _success(last.event, data)

    def _encode_error(self, error: Error) -> bytes:
        last = self._parent._last
        code, text = _fault_of(error, last.event)
        answer = {
            "eventType": last.event,
            "data": {**last.data, "roomName": last.room, "appName": last.application},
            "code": 500,
            "error": {"code": code, "message": text},
        }
        try:
            return _encoder.encode(answer)
        except UnicodeEncodeError:
            # The repeated data may hold lone surrogates, which only Python's own encoder accepts.
            return json.dumps(answer, separators=(",", ":")).encode()


# Decoding ------------------------------------------------------------------------------------------


def _command(frame: ClientFrame) -> Command | None:
    """Return the command of a valid frame. Raises RoomsError.

    None is for a frame that only asks whether the application exists.
    """
    id = frame.id
    if frame.event == EventType.JOIN_APP:
        return None
    if frame.event == EventType.LOGIN:
        return Login(id=id, name=frame.text("username") or "")
    if frame.event == EventType.LOGOUT:
        return Logout(id=id)
    if frame.event == EventType.MESSAGE:
        data, name = _raw(frame.data), _event_name(frame)
        if not frame.room:
            return SendToApplication(id=id, data=data, event=name)
        return SendToRoomOrApplication(id=id, room=_room(frame.room), data=data, event=name)
    if frame.event not in _ROOM_EVENTS:
        raise UnknownType("Clients cannot send this event.")
    room = _room(frame.text("roomName"))
    if frame.event == EventType.JOIN_ROOM:
        return CompatJoin(id=id, room=room, create="never", if_member="refuse")
    if frame.event == EventType.LEAVE_ROOM:
        return Leave(id=id, room=room)
    if frame.event == EventType.SUBSCRIBE:
        return CompatSubscribe(id=id, room=room, create="never", if_member="refuse")
    return Unsubscribe(id=id, room=room)


def _raw(data: dict[str, Any]) -> Raw:
    try:
        return Raw(_encoder.encode(data))
    except UnicodeEncodeError:
        raise UnknownType("Text must not hold lone surrogates.") from None


def _event_name(frame: ClientFrame) -> str | None:
    """Return the event name in the data of a frame, or None."""
    name = frame.text("eventName") or None
    if name is not None and not validators.is_event_name(name):
        raise UnknownType("This is not a valid event name.")
    return name


def _room(name: str | None) -> str:
    if name is None or not validators.is_room_name(name):
        raise BadRequest("This is not a valid room name.")
    return name


def parse_frame(frame: str | bytes, id: int) -> ClientFrame:
    """Return a parsed frame with the number ``id``."""
    try:
        text = frame if isinstance(frame, str) else frame.decode()
    except UnicodeDecodeError:
        return ClientFrame(id=id)
    try:
        found = _frame_decoder.decode(text) if native.is_plain(text) or is_valid_json(text.encode()) else None
    except (msgspec.MsgspecError, UnicodeEncodeError):
        found = None
    if found is None:
        return _parse_leniently(text, id)
    return ClientFrame(
        id=id,
        application=found.application or "",
        room=found.room or "",
        event=found.event or 0,
        data=found.data or {},
        valid=True,
    )


def _parse_leniently(text: str, id: int) -> ClientFrame:
    """Return what can be parsed of a frame that is not, or may not be, valid."""
    numbers = _Numbers()
    try:
        value = json.loads(
            text, parse_int=numbers.integer, parse_float=numbers.number, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        return ClientFrame(id=id)
    if not isinstance(value, dict):
        return ClientFrame(id=id)
    application, room, data = value.get("appName"), value.get("roomName"), value.get("data")
    event = value.get("eventType")
    if isinstance(event, bool) or not isinstance(event, int | None):
        return ClientFrame(id=id)
    valid = (
        isinstance(application, str | None)
        and isinstance(room, str | None)
        and isinstance(data, dict | None)
        and not numbers.overflow
        and not _is_deeper(value, strict_json.MAX_DEPTH)
    )
    return ClientFrame(
        id=id,
        application=application if isinstance(application, str) else "",
        room=room if isinstance(room, str) else "",
        event=event or 0,
        data=data if valid and data else {},
        valid=valid,
    )


class _Numbers:
    """Parsing of numbers: those that 64 bits do not hold become doubles.

    In the original all numbers are doubles.
    """

    def __init__(self) -> None:
        # Whether a number was too large for a double.
        self.overflow = False

    def integer(self, digits: str) -> int | float:
        if len(digits) <= 20 and -_INTEGERS_END <= int(digits) < _INTEGERS_END:
            return int(digits)
        return self.number(digits)

    def number(self, digits: str) -> float:
        value = float(digits)
        if math.isfinite(value):
            return value
        self.overflow = True
        return 0.0


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON.")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether it is nested deeper than that."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


# Encoding ------------------------------------------------------------------------------------------


def _fault_of(error: Error, event: int) -> tuple[int, str]:
    """Return the code and the text for an error that answers an event."""
    fault = _FAULTS.get(error.code)
    if fault is None:
        faults, default = _FAULTS_BY_EVENT.get(event, ({}, Fault.SERVER))
        fault = faults.get(error.code, default)
    code, text = fault.value
    if error.code == "room_full":
        text = "room is full"
    elif error.code == "rejected" or (fault is Fault.SERVER and error.code not in _FAULTS):
        # The text of an extension is for people, and a refused message is no error of the server.
        text = error.message
    return code, text


def _success(event: int, data: dict[str, Any]) -> bytes:
    return _encoder.encode(
        {"eventType": event, "data": data, "code": 200, "error": {"code": 0, "message": ""}}
    )


def _message(event: Message | Direct, application: str) -> bytes:
    data: dict[str, Any]
    # The members stay undecoded, because they may be long.
    try:
        data = dict(_data_decoder.decode(event.data))
    except msgspec.ValidationError:
        data = {"data": event.data}
    if event.event != validators.DEFAULT_EVENT:
        data.setdefault("eventName", event.event)
    sender = event.sender.name if event.sender else ""
    return _success(
        EventType.MESSAGE, {**data, "roomName": event.room, "appName": application, "userName": sender}
    )


def _handler_answer(data: object, room: str) -> dict[str, Any]:
    """Return the answer of an extension's handler; empty without one."""
    if not isinstance(data, dict):
        return {}
    # The reply to a message in a room has these too, for native clients.
    return {name: each for name, each in data.items() if not room or name not in ("seq", "time")}
