"""Slow parsing of the lines that the fast path does not accept.

The fast path in ``native.py`` decodes every line with msgspec. A line that msgspec rejects, or that may
break a rule which msgspec does not check (depth, huge numbers, lone surrogates), is parsed here, so that
the answer names the rule. Native protocol, sections 1 and 10.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from rooms.protocol.errors import BadRequest, ProtocolError

MAX_DEPTH = 16
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1

# Strings are matched, so that brackets inside them are skipped. A string without an end extends to the end
# of the line, so that no quote is tried twice and the search stays linear.
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[][{}]', re.DOTALL)
_PARTNERS = {"]": "[", "}": "{"}


def parse(line: str) -> tuple[dict[str, Any], BadRequest | None]:
    """Return a line's JSON object, and an error if it breaks a rule of section 10.

    Raises ProtocolError if the line is not a JSON object at all.
    """
    faults: list[str] = []

    def integer(digits: str) -> int:
        # The length first, because the interpreter refuses to parse very long integers.
        value = int(digits) if len(digits) <= 20 else _LARGEST + 1
        if not _SMALLEST <= value <= _LARGEST:
            faults.append(f"Expected an integer from -2^63 to 2^63-1, got {digits[:24]}.")
        return value

    def number(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            faults.append(f"Numbers must not overflow a double, got {digits[:24]}.")
        return value

    def constant(name: str) -> float:
        faults.append(f"{name} is not JSON.")
        return 0.0

    flat = _cut_at_max_depth(line)
    if flat is not line:
        faults.append(f"JSON must be nested at most {MAX_DEPTH} levels deep.")
    try:
        value = json.loads(flat, parse_int=integer, parse_float=number, parse_constant=constant)
    except ValueError:
        raise ProtocolError("Expected JSON objects, one per line.") from None
    if not isinstance(value, dict):
        raise ProtocolError("Expected JSON objects, one per line.")
    if _has_surrogates(value):
        faults.append("Text must not hold lone surrogates.")
    return value, BadRequest(faults[0]) if faults else None


def _cut_at_max_depth(line: str) -> str:
    """Return a line with null in place of all values below the allowed depth.

    That bounds the recursion of the parser. A line that is not too deep is returned as the same object.
    """
    parts: list[str] = []
    open_brackets: list[str] = []
    kept_until = 0
    for match in _BRACKETS.finditer(line):
        token = match.group()
        if token in ("[", "{"):
            open_brackets.append(token)
            if len(open_brackets) == MAX_DEPTH + 1:
                parts.append(line[kept_until : match.start()])
        elif token in _PARTNERS:
            if not open_brackets or open_brackets.pop() != _PARTNERS[token]:
                raise ProtocolError("Expected JSON objects, one per line.")
            if len(open_brackets) == MAX_DEPTH:
                parts.append("null")
                kept_until = match.end()
    if not parts:
        return line
    if open_brackets:
        raise ProtocolError("Expected JSON objects, one per line.")
    return "".join([*parts, line[kept_until:]])


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(_has_surrogates(key) or _has_surrogates(each) for key, each in value.items())
    if isinstance(value, list):
        return any(_has_surrogates(each) for each in value)
    return False
