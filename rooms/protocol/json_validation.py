"""Validation of JSON texts that is linear in their length and builds no values.

The rules are those of the native protocol (sections 1 and 10), as in ``strict_json.py``: at most 16 levels
of nesting, integers within 64 bits, numbers that a double holds. A text is scanned in a few passes of the
interpreter's C code, so a hostile megabyte takes about as long as any other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec
from msgspec import Raw

from rooms.protocol import strict_json

# In texts up to this length numbers that may overflow are parsed; in longer ones they are invalid.
MAX_LENGTH_WITH_HUGE_NUMBERS = 64 * 1024

# Checks the syntax and lone surrogates; the other rules are below.
_reader = msgspec.json.Decoder(Raw)

# With every digit replaced by 0, each number that is too large contains one of these.
_SHAPES = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_SHAPE = b"0" * 19
_HUGE_SHAPES = (b"0" * 200, b"e000", b"e+000")
_LONG_INTEGER = re.compile(rb"[\[,:\s](-?\d{19,}+)(?![.eE])")
_HUGE = re.compile(rb"[\[,:\s-](\d{200,}+[\d.]*+(?:[eE][+-]?\d++)?+|\d[\d.]*+[eE]\+?\d{3,}+)")
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1

# Eight brackets are one byte, an opening one is a 1: the deepest level within the byte and the level at
# its end.
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BITS = bytes.maketrans(b"[{]}", b"1100")
_LEVELS = [list(accumulate(1 if byte >> bit & 1 else -1 for bit in range(7, -1, -1))) for byte in range(256)]
_PEAKS = bytes(max(0, *levels) for levels in _LEVELS)
_ENDS = bytes(levels[-1] & 255 for levels in _LEVELS)


def is_valid_json(text: bytes) -> bool:
    """Return whether a text in UTF-8 is one JSON value that follows the rules."""
    try:
        _reader.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    shape = text.translate(_SHAPES)
    is_long, is_huge = _LONG_SHAPE in shape, any(each in shape for each in _HUGE_SHAPES)
    is_deep = text.count(b"[") + text.count(b"{") > strict_json.MAX_DEPTH
    if not (is_long or is_huge or is_deep):
        return True
    bare = _without_strings(text)
    return not (
        (is_long and _has_long_integers(bare))
        or (is_huge and _has_huge_numbers(bare))
        or (is_deep and _depth(bare) > strict_json.MAX_DEPTH)
    )


def _without_strings(text: bytes) -> bytes:
    """Return the text between strings; a comma in front precedes any number."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join([b",", *text.split(b'"')[::2]])


def _has_long_integers(bare: bytes) -> bool:
    # The length first, because the interpreter refuses to parse very long integers.
    return any(
        len(digits) > 20 or not _SMALLEST <= int(digits) <= _LARGEST for digits in _LONG_INTEGER.findall(bare)
    )


def _has_huge_numbers(bare: bytes) -> bool:
    if len(bare) > MAX_LENGTH_WITH_HUGE_NUMBERS:
        return _HUGE.search(bare) is not None
    return any(math.isinf(float(digits)) for digits in _HUGE.findall(bare))


def _depth(bare: bytes) -> int:
    """Return the depth of nesting; all brackets match, as the syntax is checked."""
    brackets = bare.translate(_BITS, _NO_BRACKETS)
    brackets += b"0" * (8 - len(brackets) % 8)
    packed = int(brackets, 2).to_bytes(len(brackets) // 8, "big")
    ends: Iterator[int] = accumulate(memoryview(packed.translate(_ENDS)).cast("b"), initial=0)
    return max(end + peak for end, peak in zip(ends, packed.translate(_PEAKS), strict=False))
