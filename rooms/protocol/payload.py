r"""Conversion of payloads between bytes and JSON values.

Some protocols carry bytes, others JSON values; a payload may go from any of them to any other.

- A JSON text on one line that follows the native protocol's rules, and is no string, is that value; the
  text stays unchanged.
- Any other text in UTF-8 is the string of that text.
- Bytes that are not UTF-8 are ``{"base64": "..."}``.

The conversion is lossless both ways: ``to_bytes(from_bytes(payload)) == payload``, and
``from_bytes(to_bytes(data))`` is the value of ``data``. Two values never share one payload: the string
``123`` becomes ``"123"`` with its quotes, and a text that would read as such a base64 object becomes base64
itself. A base64 object is only an object if its bytes have a plainer value, or if it is not in the plain
form: one line, without escapes except ``\/``.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode

import msgspec
from msgspec import Raw

from rooms.protocol.json_validation import is_valid_json

# Without line breaks, because one would end the line of the native protocol in the middle of a message.
_MIGHT_BE_JSON = re.compile(rb"[ \t\r]*+(?:[\[{\d-]|true|false|null)[^\n]*+\Z")
_BASE64_BEGINS = re.compile(rb'[ \t\r]*+\{[ \t\r]*+"base64"[ \t\r]*+:[ \t\r]*+"')
_BASE64_ENDS = re.compile(rb'"[ \t\r]*+\}[ \t\r]*+\Z')

_encode = msgspec.json.encode


def from_bytes(payload: bytes) -> Raw:
    """Return the JSON text, without line breaks, of the value for a payload."""
    if not _is_text(payload):
        return _wrapped(payload)
    if _is_json(payload):
        return Raw(payload) if _unwrapped(payload) is None else _wrapped(payload)
    return Raw(payload if _is_quoted_ambiguous(payload) else _encode(payload.decode()))


def to_bytes(data: Raw) -> bytes:
    """Return the payload for a value."""
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
    """Return whether a text is converted as JSON; strings never are."""
    return _MIGHT_BE_JSON.match(text) is not None and is_valid_json(text)


def _is_ambiguous(string: bytes) -> bool:
    """Return whether a string without its quotes would become another value."""
    return _is_json(string) or _is_quoted_ambiguous(string)


def _is_quoted_ambiguous(text: bytes) -> bool:
    """Return whether a text is the quoted form of an ambiguous string."""
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
    """Return the bytes of a base64 object, or None if the bytes have a plainer value.

    They have none if they are not UTF-8, or are such an object themselves.
    """
    payload = _decoded(text)
    innermost = payload
    while innermost is not None:
        if (inner := _decoded(innermost)) is None:
            return None if _is_text(innermost) else payload
        innermost = inner
    return None


def _decoded(text: bytes) -> bytes | None:
    """Return the bytes of any base64 object on one line; None for any other text."""
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
