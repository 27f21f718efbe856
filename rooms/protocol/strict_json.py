"""What a line that could not be taken as it is has wrong with it.

The fast path in ``native.py`` hands every line straight to msgspec. A line that msgspec refuses, or
that only might break a rule msgspec does not know (depth, huge numbers, lone surrogates), comes
here, where it is read slowly and the sender is told what is wrong. Native protocol, sections 1 and 10.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from rooms.protocol.errors import BadRequest, ProtocolError

DEEPEST = 16
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1

# What only might break a rule that msgspec does not check has one of these shapes: a long number, one with
# a long exponent, a surrogate. Every digit is a 0 in them, so that each is looked for in one pass.
_SHAPES = bytes.maketrans(b"123456789ED{", b"000000000ed[")
_LONG, _SURROGATE = ("0" * 19, "e000", "e+000"), "\\ud"
# Strings are matched so that the brackets inside them are passed over; one that does not end runs to
# the end of the line, so that no quote is tried twice and the search stays linear.
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[][{}]', re.DOTALL)
_PARTNERS = {"]": "[", "}": "{"}


def is_plain(line: str) -> bool:
    """Whether the line certainly keeps the rules on depth, numbers and surrogates."""
    # Text again, since Python looks for text in text much faster than for bytes in bytes.
    shape = line.encode().translate(_SHAPES).decode("latin-1")
    if shape.count("[") > DEEPEST or ("\\" in shape and _SURROGATE in shape):
        return False
    return "000" not in shape or not any(each in shape for each in _LONG)


def read(line: str) -> tuple[dict[str, Any], BadRequest | None]:
    """The line's JSON object, and the rule of section 10 that it breaks, if it breaks one.

    Raises ProtocolError where the line is not a JSON object at all.
    """
    faults: list[str] = []

    def integer(digits: str) -> int:
        # Python refuses to read very long integers, so their length is looked at first.
        value = int(digits) if len(digits) <= 20 else _LARGEST + 1
        if not _SMALLEST <= value <= _LARGEST:
            faults.append(f"Integers lie between -2^63 and 2^63-1, got {digits[:24]}.")
        return value

    def number(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            faults.append(f"Numbers must not overflow, got {digits[:24]}.")
        return value

    def constant(name: str) -> float:
        faults.append(f"{name} is not JSON.")
        return 0.0

    flat = _without_the_deepest(line)
    if flat is not line:
        faults.append(f"JSON is nested at most {DEEPEST} deep.")
    try:
        value = json.loads(flat, parse_int=integer, parse_float=number, parse_constant=constant)
    except ValueError:
        raise ProtocolError("A frame holds JSON objects, one a line.") from None
    if not isinstance(value, dict):
        raise ProtocolError("A frame holds JSON objects, one a line.")
    if _has_surrogates(value):
        faults.append("Text must not hold lone surrogates.")
    return value, BadRequest(faults[0]) if faults else None


def _without_the_deepest(line: str) -> str:
    """The line with everything below the lawful depth left out, so that reading it cannot recurse
    without bound; the very same line where there is nothing to leave out."""
    parts: list[str] = []
    open_brackets: list[str] = []
    kept_until = 0
    for match in _BRACKETS.finditer(line):
        token = match.group()
        if token in ("[", "{"):
            open_brackets.append(token)
            if len(open_brackets) == DEEPEST + 1:
                parts.append(line[kept_until : match.start()])
        elif token in _PARTNERS:
            if not open_brackets or open_brackets.pop() != _PARTNERS[token]:
                raise ProtocolError("A frame holds JSON objects, one a line.")
            if len(open_brackets) == DEEPEST:
                parts.append("null")
                kept_until = match.end()
    if not parts:
        return line
    if open_brackets:
        raise ProtocolError("A frame holds JSON objects, one a line.")
    return "".join([*parts, line[kept_until:]])


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(_has_surrogates(key) or _has_surrogates(each) for key, each in value.items())
    if isinstance(value, list):
        return any(_has_surrogates(each) for each in value)
    return False
