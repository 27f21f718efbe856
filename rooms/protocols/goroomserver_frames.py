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
from msgspec import Struct

from rooms.protocols import strict

_MOST = 2**63


class _Frame(Struct):
    """A request as it is sent."""

    application: str | None = msgspec.field(name="appName", default=None)
    room: str | None = msgspec.field(name="roomName", default=None)
    event: int | None = msgspec.field(name="eventType", default=None)
    data: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class Asked:
    """What is being answered; ``sound`` is what could be read as a request."""

    id: int = 0
    application: str = ""
    room: str = ""
    event: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    sound: bool = False


_decoder = msgspec.json.Decoder(_Frame)


def read(frame: str | bytes, id: int) -> Asked:
    """What a frame asks; ``id`` is the number that it gets."""
    try:
        text = frame if isinstance(frame, str) else frame.decode()
    except UnicodeDecodeError:
        return Asked(id=id)
    if strict.is_plain(text):
        try:
            found = _decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            return _read_closely(text, id)
        return Asked(
            id=id,
            application=found.application or "",
            room=found.room or "",
            event=found.event or 0,
            data=found.data or {},
            sound=True,
        )
    return _read_closely(text, id)


def _read_closely(text: str, id: int) -> Asked:
    """As much as can be read of a frame that has, or may have, something wrong with it."""
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError):
        return Asked(id=id)
    if not isinstance(value, dict):
        return Asked(id=id)
    application, room, data = value.get("appName"), value.get("roomName"), value.get("data")
    event = value.get("eventType")
    if isinstance(event, bool) or not isinstance(event, int | None):
        return Asked(id=id)
    sound = (
        isinstance(application, str | None)
        and isinstance(room, str | None)
        and isinstance(data, dict | None)
        and not _is_deeper(value, strict.DEEPEST)
    )
    return Asked(
        id=id,
        application=application if isinstance(application, str) else "",
        room=room if isinstance(room, str) else "",
        event=event or 0,
        data=data if sound and data else {},
        sound=sound,
    )


def _integer(digits: str) -> int | float:
    """To the original all numbers are doubles; here those are that no 64 bits hold."""
    if len(digits) <= 20 and -_MOST <= int(digits) < _MOST:
        return int(digits)
    return _number(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits[:24])
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether it is nested deeper than that."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)
