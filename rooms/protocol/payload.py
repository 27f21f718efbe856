r"""Payloads between doors: what is bytes at one is a JSON value at another.

- A JSON text on one line that keeps the native protocol's rules, but for a string, is that value; its
  text stays as it is.
- Any other UTF-8 text is the string of that text.
- Bytes that are no UTF-8 are ``{"base64": "..."}``.

Nothing is lost either way: ``to_bytes(from_bytes(payload)) == payload`` and ``from_bytes(to_bytes(data))``
is the value of ``data``. So where two would be the same, one of them is written in a longer way: the
string ``123`` is ``"123"`` with its quotes, and a text that reads as such a base64 object is in base64
itself. A base64 object that holds what has a plainer value is nothing but an object, and so is one that is
not written plainly: on one line, with no escape but ``\/``.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode

import msgspec
from msgspec import Raw

from rooms.protocol.json_validation import is_lawful

# A line break would end a message of the native protocol in its middle.
_MIGHT_BE_JSON = re.compile(rb"[ \t\r]*+(?:[\[{\d-]|true|false|null)[^\n]*+\Z")
_BASE64_BEGINS = re.compile(rb'[ \t\r]*+\{[ \t\r]*+"base64"[ \t\r]*+:[ \t\r]*+"')
_BASE64_ENDS = re.compile(rb'"[ \t\r]*+\}[ \t\r]*+\Z')

_encode = msgspec.json.encode


def from_bytes(payload: bytes) -> Raw:
    """The JSON text of the value that stands for these bytes; it holds no line break."""
    if not _is_text(payload):
        return _wrapped(payload)
    if _is_json(payload):
        return Raw(payload) if _unwrapped(payload) is None else _wrapped(payload)
    return Raw(payload if _is_needed_quote(payload) else _encode(payload.decode()))


def to_bytes(data: Raw) -> bytes:
    """The bytes that stand for this value."""
    text = bytes(data)
    first = text.lstrip()[:1]
    if first == b'"':
        string = msgspec.json.decode(text, type=str).encode()
        return _encode(string.decode()) if _is_ambiguous(string) else string
    unwrapped = _unwrapped(text) if first == b"{" else None
    return text if unwrapped is None else unwrapped


# Texts -------------------------------------------------------------------------------------------------


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json(text: bytes) -> bool:
    """Whether a text is taken for JSON, strings aside."""
    return _MIGHT_BE_JSON.match(text) is not None and is_lawful(text)


def _is_ambiguous(string: bytes) -> bool:
    """Whether the text of a string by itself would be read as something else."""
    return _is_json(string) or _is_needed_quote(string)


def _is_needed_quote(text: bytes) -> bool:
    """Whether a text is what an ambiguous string is written as."""
    if text[:1] != b'"' or text[-1:] != b'"':
        return False
    try:
        string = msgspec.json.decode(text, type=str)
    except msgspec.MsgspecError:
        return False
    return _is_ambiguous(string.encode()) and _encode(string) == text


# Bytes -------------------------------------------------------------------------------------------------


def _wrapped(payload: bytes) -> Raw:
    return Raw(b'{"base64":"' + b64encode(payload) + b'"}')


def _unwrapped(text: bytes) -> bytes | None:
    """The bytes that a JSON text stands for, if it is a base64 object of bytes that have no plainer value:
    that are no UTF-8, or such an object themselves."""
    payload = _decoded(text)
    innermost = payload
    while innermost is not None:
        if (inner := _decoded(innermost)) is None:
            return None if _is_text(innermost) else payload
        innermost = inner
    return None


def _decoded(text: bytes) -> bytes | None:
    """What a base64 object on one line holds, whatever that is; None for any other text."""
    begins = _BASE64_BEGINS.match(text)
    if begins is None:
        return None
    ends = _BASE64_ENDS.search(text, max(begins.end(), text.rfind(b'"')))
    if ends is None:
        return None
    digits = text[begins.end() : ends.start()]
    if b"\\" in digits:
        digits = digits.replace(b"\\/", b"/")
    try:
        payload = binascii.a2b_base64(digits, strict_mode=True)
    except binascii.Error:
        return None
    return payload if b64encode(payload) == digits else None
