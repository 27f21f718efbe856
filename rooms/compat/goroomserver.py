"""The goroomserver protocol: JSON requests, each of which names its application, and JSON answers.

A request is answered in full before the next one is carried out, so the codec remembers one at a time:
an error repeats what was asked. How frames are read: ``goroomserver_frames.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from rooms.compat.goroomserver_codec import ClientMessage, read
from rooms.protocol import validators
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
    """An error's code and text."""

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


# What one of our errors is here, whatever was asked.
_FAULTS = {
    "no_such_application": Fault.INVALID_APP,
    "not_logged_in": Fault.USER_UNAVAILABLE,
    "unknown_type": Fault.INVALID_EVENT,
    "unavailable": Fault.SERVER,
    "rate_limited": Fault.SERVER,
    "internal_error": Fault.SERVER,
}
_FAULTS_OF_ROOMS = {
    "bad_request": Fault.INVALID_ROOM,
    "room_not_found": Fault.UNKNOWN_ROOM,
    "already_member": Fault.ALREADY_JOINED,
    "not_member": Fault.NOT_IN_ROOM,
}
# For each event what else our errors are, and what all others are.
_FAULTS_OF: dict[int, tuple[dict[str, Fault], Fault]] = {
    EventType.LOGIN: ({"name_taken": Fault.ALREADY_LOGGED_IN}, Fault.LOGIN),
    EventType.LOGOUT: ({}, Fault.LOGOUT),
    EventType.JOIN_ROOM: (_FAULTS_OF_ROOMS, Fault.JOIN_ROOM),
    EventType.SUBSCRIBE: (_FAULTS_OF_ROOMS, Fault.JOIN_ROOM),
    EventType.LEAVE_ROOM: (_FAULTS_OF_ROOMS, Fault.LEAVE_ROOM),
    EventType.UNSUBSCRIBE: (_FAULTS_OF_ROOMS, Fault.LEAVE_ROOM),
    EventType.MESSAGE: (_FAULTS_OF_ROOMS, Fault.SERVER),
}
_OF_A_NAMED_ROOM = frozenset(
    {EventType.JOIN_ROOM, EventType.LEAVE_ROOM, EventType.SUBSCRIBE, EventType.UNSUBSCRIBE}
)


_encoder = msgspec.json.Encoder()
_members = msgspec.json.Decoder(dict[str, Raw])


class Goroomserver(Protocol):
    name: ClassVar[str] = "goroomserver"
    options: ClassVar[ProtocolOptions] = ProtocolOptions(
        auto_subscribe_room_list=True, reports_missing_rooms=True, multiplexes_applications=True
    )

    def __init__(self, application: str = "", trunk: Goroomserver | None = None) -> None:
        self._application = application
        # Its requests are those of the whole socket.
        self._trunk = trunk or self
        self._asked = ClientMessage()
        # A logout is answered with the name.
        self._user = ""

    def for_application(self, application: str) -> Goroomserver:
        return Goroomserver(application, self)

    def decode(self, frame: str | bytes) -> Iterator[Command | Error]:
        asked = self._asked = read(frame, self._asked.id + 1)
        if not asked.sound:
            yield error_event(asked.id, UnknownType("A frame holds one request, a JSON object."))
            return
        command: Command | Error | None
        try:
            command = _command(asked)
        except RoomsError as error:
            command = error_event(asked.id, error)
        yield ApplicationCommand(id=asked.id, application=asked.application, command=command)

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Reply):
            return self._answer(event)
        if isinstance(event, Error):
            return self._refusal(event)
        return self.encode_broadcast(event, self._application)

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        if isinstance(event, Direct) and event.outside:
            # It would seem to be said in a room.
            return None
        if isinstance(event, Message | Direct):
            return _message(event, application)
        if isinstance(event, RoomAdded):
            # One that is only another now is no news.
            told = {"roomName": event.room.name, "appName": application}
            return None if isinstance(event, RoomEdited) else _success(EventType.ROOM_ADD, told)
        if isinstance(event, RoomRemoved):
            return _success(EventType.ROOM_REMOVE, {"roomName": event.room, "appName": application})
        return None

    def _answer(self, reply: Reply) -> bytes | None:
        asked = self._trunk._asked
        data: dict[str, Any] = {"appName": asked.application}
        if asked.event == EventType.LOGIN:
            user = reply.data["user"]  # type: ignore[index]
            data["userName"] = self._user = user.name
        elif asked.event == EventType.LOGOUT:
            data["userName"] = self._user
        elif asked.event == EventType.MESSAGE:
            answer = _answer_of_handler(reply.data, asked.room)
            if not answer:
                return None
            data = {**answer, "roomName": asked.room, **data}
        elif asked.event in _OF_A_NAMED_ROOM:
            data["roomName"] = asked.text("roomName")
        return _success(asked.event, data)

    def _refusal(self, error: Error) -> bytes:
        asked = self._trunk._asked
        code, text = _meaning(error, asked.event)
        answer = {
            "eventType": asked.event,
            "data": {**asked.data, "roomName": asked.room, "appName": asked.application},
            "code": 500,
            "error": {"code": code, "message": text},
        }
        try:
            return _encoder.encode(answer)
        except UnicodeEncodeError:
            # What is repeated may hold what only Python's own writes: lone surrogates.
            return json.dumps(answer, separators=(",", ":")).encode()


def _command(asked: ClientMessage) -> Command | None:
    """What a sound frame asks; None: whether there is such an application. Raises RoomsError."""
    id = asked.id
    if asked.event == EventType.JOIN_APP:
        return None
    if asked.event == EventType.LOGIN:
        return Login(id=id, name=asked.text("username") or "")
    if asked.event == EventType.LOGOUT:
        return Logout(id=id)
    if asked.event == EventType.MESSAGE:
        data, name = _raw(asked.data), _event_name(asked)
        if not asked.room:
            return SendToApplication(id=id, data=data, event=name)
        return SendToRoomOrApplication(id=id, room=_room(asked.room), data=data, event=name)
    if asked.event not in _OF_A_NAMED_ROOM:
        raise UnknownType("There is no such event for clients.")
    room = _room(asked.text("roomName"))
    if asked.event == EventType.JOIN_ROOM:
        return CompatJoin(id=id, room=room, create="never", if_member="refuse")
    if asked.event == EventType.LEAVE_ROOM:
        return Leave(id=id, room=room)
    if asked.event == EventType.SUBSCRIBE:
        return CompatSubscribe(id=id, room=room, create="never", if_member="refuse")
    return Unsubscribe(id=id, room=room)


def _raw(data: dict[str, Any]) -> Raw:
    try:
        return Raw(_encoder.encode(data))
    except UnicodeEncodeError:
        raise UnknownType("Text must not hold lone surrogates.") from None


def _event_name(asked: ClientMessage) -> str | None:
    """What the data call the event; None where they do not."""
    name = asked.text("eventName") or None
    if name is not None and not validators.is_event_name(name):
        raise UnknownType("This is no lawful name of an event.")
    return name


def _room(name: str | None) -> str:
    if name is None or not validators.is_room_name(name):
        raise BadRequest("This is no lawful name of a room.")
    return name


def _meaning(error: Error, event: int) -> tuple[int, str]:
    """The code and the text of an error that answers this event."""
    fault = _FAULTS.get(error.code)
    if fault is None:
        known, others = _FAULTS_OF.get(event, ({}, Fault.SERVER))
        fault = known.get(error.code, others)
    code, text = fault.value
    if error.code == "room_full":
        text = "room is full"
    elif error.code == "rejected" or (fault is Fault.SERVER and error.code not in _FAULTS):
        # What extensions say is for people; and that a message was refused is no fault of the server.
        text = error.message
    return code, text


def _success(event: int, data: dict[str, Any]) -> bytes:
    return _encoder.encode(
        {"eventType": event, "data": data, "code": 200, "error": {"code": 0, "message": ""}}
    )


def _message(event: Message | Direct, application: str) -> bytes:
    data: dict[str, Any]
    # What the members are is nobody's business here: it may be long.
    try:
        data = dict(_members.decode(event.data))
    except msgspec.ValidationError:
        data = {"data": event.data}
    if event.event != validators.DEFAULT_EVENT:
        data.setdefault("eventName", event.event)
    sender = event.sender.name if event.sender else ""
    return _success(
        EventType.MESSAGE, {**data, "roomName": event.room, "appName": application, "userName": sender}
    )


def _answer_of_handler(data: object, room: str) -> dict[str, Any]:
    """What a handler answered; empty where none did."""
    if not isinstance(data, dict):
        return {}
    # To a message in a room, native clients get these as well.
    return {name: each for name, each in data.items() if not room or name not in ("seq", "time")}
