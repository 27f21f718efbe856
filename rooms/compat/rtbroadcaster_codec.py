"""rtbroadcaster's messages: five fields, and whatever else a client of the original puts beside them.

The rules of the native protocol hold for the five fields, since every door hears of them. The rest is passed
on to listeners as it was written. Next in the flow: ``rtbroadcaster.py`` says what a message asks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw

from rooms.protocol import payload, validators
from rooms.protocol.errors import BadRequest
from rooms.protocol.events import Direct, Message
from rooms.protocol.json_validation import is_lawful

# Values of a status.
NOT_CONNECTED, NEW, JOIN, CONNECTED, CLOSE = range(5)


class Status(msgspec.Struct, frozen=True):
    value: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = NOT_CONNECTED
    text: str = ""


class Words(msgspec.Struct, frozen=True, rename="camel"):
    """The five fields. Of what is sent none has to be there, as in the original."""

    uuid: str = ""
    status: Status = Status()
    func_key: str = ""
    func_params: list[str] | None = None
    state_message: bool = False


class _Named(msgspec.Struct):
    uuid: str = ""


_encode = msgspec.json.encode
_fields_decoder = msgspec.json.Decoder(Words)
_members = msgspec.json.Decoder(dict[str, Raw])
_params_decoder = msgspec.json.Decoder(list[str])
_FIELDS = frozenset(Words.__struct_encode_fields__)
_STATUS_FIELDS = frozenset(Status.__struct_encode_fields__)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it was sent: its five fields, and its text on one line."""

    words: Words
    text: bytes

    def is_usual(self, room: str) -> bool:
        """Whether it is, member for member, what the SDK sends to this room."""
        words = self.words
        # Null parameters are passed on like any others: elsewhere they are an empty list.
        if words.func_params is None or words.uuid != room or words.status != Status(CONNECTED, "connected"):
            return False
        try:
            members = _members.decode(self.text)
            return members.keys() == _FIELDS and _members.decode(members["status"]).keys() == _STATUS_FIELDS
        except (msgspec.DecodeError, RecursionError):
            return False

    def whole(self) -> Raw:
        """All of it, as the ``original`` of an event; in a string where not every reader of JSON takes it."""
        return Raw(self.text if is_lawful(self.text) else _encode(self.text.decode()))


def read(frame: str | bytes) -> Sent:
    """The message that was sent. Raises BadRequest."""
    text = _line(frame)
    try:
        words = _fields(text)
    except msgspec.ValidationError as error:
        what = str(error).replace("`", "").replace(" - at $.", " at ").replace(" | ", " or ")
        raise BadRequest(f"This is no lawful message: {what[:1].lower()}{what[1:]}.") from None
    if not validators.is_event_name(words.func_key):
        raise BadRequest(f"A funcKey has at most {validators.LONGEST_EVENT} characters, none of them NUL.")
    return Sent(words, text)


def uuid_in(frame: str | bytes) -> str:
    """The uuid of a message that could not be read as one, or nothing."""
    try:
        text = _line(frame)
        try:
            return msgspec.json.decode(text, type=_Named).uuid
        except (msgspec.DecodeError, RecursionError):
            uuid = _object(text).get("uuid")
            # One that holds a lone surrogate could not be written again.
            return uuid if isinstance(uuid, str) and uuid.encode() else ""
    except (BadRequest, UnicodeEncodeError):
        return ""


def spoken(event: Message | Direct) -> bytes:
    """An event as listeners hear it."""
    text = _own_text(event)
    return _encode(_words_of(event)) if text is None else text


def replayed(message: Message) -> bytes:
    """What is kept as state are the five fields, whatever else was said with them."""
    text = _own_text(message)
    return _encode(_words_of(message) if text is None else _fields(text))


# Reading -----------------------------------------------------------------------------------------------


def _line(frame: str | bytes) -> bytes:
    try:
        text = frame.encode() if isinstance(frame, str) else frame
        text.decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        raise BadRequest("A message is text in UTF-8.") from None
    # What listeners get holds no newline: they split frames at them.
    return text.replace(b"\n", b" ")


def _fields(text: bytes) -> Words:
    """The five fields. Raises BadRequest, and ValidationError where one is not what it should be."""
    try:
        return _fields_decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError):
        value = _object(text)
    try:
        words = msgspec.convert({name: value[name] for name in _FIELDS & value.keys()}, Words)
        _encode(words)
    except UnicodeEncodeError:
        raise BadRequest("Text must not hold lone surrogates.") from None
    return words


def _object(text: bytes) -> dict[str, Any]:
    """A JSON object that may hold half a surrogate pair. Raises BadRequest."""
    try:
        # The interpreter refuses to read very long integers.
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


# Writing -----------------------------------------------------------------------------------------------


def _own_text(event: Message | Direct) -> bytes | None:
    """What was said in this protocol's own words, if it was."""
    words = event.original if isinstance(event, Message) else UNSET
    if not isinstance(words, Raw):
        return None
    text = bytes(words)
    return msgspec.json.decode(text, type=str).encode() if text.startswith(b'"') else text


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
