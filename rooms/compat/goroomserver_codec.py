"""Reading goroomserver's frames, as leniently as the original does.

What is missing or null is empty, unknown members do not matter, numbers may be as large as a double holds.
Next in the flow: ``goroomserver.py`` says what is asked.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw, Struct

from rooms.protocol import strict_json
from rooms.protocol.json_validation import is_lawful

_MOST = 2**63


class _Frame(Struct):
    """A request as it is sent."""

    application: str | None = msgspec.field(name="appName", default=None)
    room: str | None = msgspec.field(name="roomName", default=None)
    event: int | None = msgspec.field(name="eventType", default=None)
    data: dict[str, Raw] | None = None


@dataclass(slots=True, kw_only=True)
class ClientMessage:
    """What is being answered; ``sound`` is what could be read as a request. The members of ``data`` are JSON
    texts or, where the frame was read closely, values."""

    id: int = 0
    application: str = ""
    room: str = ""
    event: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    sound: bool = False

    def text(self, name: str) -> str | None:
        """The text in a member of the data; None where there is none."""
        value = self.data.get(name)
        if isinstance(value, Raw):
            try:
                return msgspec.json.decode(value, type=str)
            except msgspec.ValidationError:
                return None
        return value if isinstance(value, str) else None


_decoder = msgspec.json.Decoder(_Frame)


def read(frame: str | bytes, id: int) -> ClientMessage:
    """What a frame asks; ``id`` is the number that it gets."""
    try:
        text = frame if isinstance(frame, str) else frame.decode()
    except UnicodeDecodeError:
        return ClientMessage(id=id)
    try:
        found = _decoder.decode(text) if strict_json.is_plain(text) or is_lawful(text.encode()) else None
    except (msgspec.MsgspecError, UnicodeEncodeError):
        found = None
    if found is None:
        return _read_closely(text, id)
    return ClientMessage(
        id=id,
        application=found.application or "",
        room=found.room or "",
        event=found.event or 0,
        data=found.data or {},
        sound=True,
    )


def _read_closely(text: str, id: int) -> ClientMessage:
    """As much as can be read of a frame that has, or may have, something wrong with it."""
    numbers = _Numbers()
    try:
        value = json.loads(
            text, parse_int=numbers.integer, parse_float=numbers.number, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        return ClientMessage(id=id)
    if not isinstance(value, dict):
        return ClientMessage(id=id)
    application, room, data = value.get("appName"), value.get("roomName"), value.get("data")
    event = value.get("eventType")
    if isinstance(event, bool) or not isinstance(event, int | None):
        return ClientMessage(id=id)
    sound = (
        isinstance(application, str | None)
        and isinstance(room, str | None)
        and isinstance(data, dict | None)
        and not numbers.overflow
        and not _is_deeper(value, strict_json.DEEPEST)
    )
    return ClientMessage(
        id=id,
        application=application if isinstance(application, str) else "",
        room=room if isinstance(room, str) else "",
        event=event or 0,
        data=data if sound and data else {},
        sound=sound,
    )


class _Numbers:
    """To the original all numbers are doubles; here those are that no 64 bits hold."""

    def __init__(self) -> None:
        # One was so large that not even a double holds it.
        self.overflow = False

    def integer(self, digits: str) -> int | float:
        if len(digits) <= 20 and -_MOST <= int(digits) < _MOST:
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
